"""The stages of a run, in order. Each imports what it needs only when it has something to do."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dotbias.cli.arguments import Arguments, Stage
from dotbias.cli.beam.dataflow import check_places, is_dataflow
from dotbias.cli.beam.flags import beam_arguments, ends_with_the_job
from dotbias.cli.configuration.load import Configuration, load_configuration
from dotbias.cli.console.evaluation_summary import verdict_lines
from dotbias.cli.console.json_files import read_json, write_json
from dotbias.cli.console.logs import set_up_logs, silent_imports
from dotbias.cli.console.progress import ProgressDisplay
from dotbias.cli.console.summary import HeldOutResult, RunReport, summary
from dotbias.cli.failures import UsageError
from dotbias.cli.stages.compare_encodings import compare_run
from dotbias.cli.stages.evaluate import evaluate_run, titles_by_feature, why_not_evaluated
from dotbias.cli.stages.report import find_report, write_run_report
from dotbias.cli.stages.sample_data import SampleData, sample_data
from dotbias.cli.stages.tune import tune_run
from pipeline.config import InputConfig, PipelineConfig
from pipeline.input.matching import match_input
from pipeline.manifest import DatasetManifest, DotbiasError, join, read_manifest
from pipeline.output.existing import existing_manifest
from pipeline.storage.paths import InputError, is_remote
from trainer.config import TrainerConfig
from trainer.devices.cluster import num_workers, worker_index
from trainer.devices.memory import available_bytes

if TYPE_CHECKING:
    from dotbias.evaluation.evaluate import StoredEvaluation
    from pipeline.beam.submission import Submission

_TEST_NAME = "test.json"


def run_stages(arguments: Arguments) -> None:
    """Checks everything that can be checked, then does what is not done yet, and prints a summary.

    Raises:
        UsageError: before any work.
        DotbiasError: a stage failed for a reason that its message gives.
    """
    configuration = load_configuration(arguments.config, arguments.overrides, arguments.input)
    # Before Beam is imported for the sake of a flag, or TensorFlow by a stage.
    set_up_logs(arguments.verbose)
    reads_files = configuration.pipeline.input.format != "bigquery"
    generates = configuration.sample is not None and not configuration.pipeline.input.patterns and reads_files
    on_dataset = arguments.stage in ("train", "tune", "evaluate")
    reads_log = (not on_dataset and not generates and reads_files) or (
        arguments.stage == "evaluate" and arguments.input
    )
    patterns = configuration.pipeline.input.patterns
    if reads_log and not any(map(is_remote, patterns)):
        _check_input(configuration.pipeline)
    for_beam = beam_arguments(arguments.runner, arguments.beam, arguments.run_id)
    if arguments.runner is not None and is_dataflow(arguments.runner) and not on_dataset:
        check_places(arguments.output_root, patterns)
    if arguments.beam and arguments.stage in ("all", "compare_encodings") and not ends_with_the_job(for_beam):
        raise UsageError("training needs the dataset, and Beam is told not to wait for it; add --stage preprocess")
    if reads_log and any(map(is_remote, patterns)):
        # After the flags, since the network is asked.
        _check_input(configuration.pipeline)

    if arguments.stage == "plan":
        print(_plan(configuration, arguments.verbose), end="")
        return
    _check_workers(arguments.stage)
    titles = titles_by_feature(arguments.titles, configuration)
    run = join(arguments.output_root, "runs", arguments.run_id)
    if arguments.stage == "evaluate":
        print(evaluate_run(arguments, configuration, run, titles), end="")
        return
    report = RunReport(dataset=join(run, "dataset"), model=join(run, "model"))
    if on_dataset and not is_remote(report.dataset):
        # Says that the dataset is missing before anything else is done.
        report.manifest = read_manifest(report.dataset)
    progress = ProgressDisplay()
    try:
        sample = None
        if generates and configuration.sample is not None:
            with _timed("generate", report, progress):
                sample = sample_data(arguments.output_root, configuration.sample, progress)
        if arguments.stage == "compare_encodings":
            pipeline = _with_input(configuration.pipeline, sample)
            with _timed("compare_encodings", report, progress):
                report.comparison = compare_run(arguments, configuration, pipeline, for_beam, progress)
        elif not on_dataset:
            pipeline = _with_input(configuration.pipeline, sample)
            made = _preprocess(report, pipeline, for_beam, progress, arguments.verbose)
            if isinstance(made, DatasetManifest):
                report.manifest = made
            else:
                report.submission = made
        if arguments.stage == "tune":
            with _timed("tune", report, progress):
                report.tuning = tune_run(arguments, configuration, report.dataset, progress)
        elif arguments.stage in ("train", "all"):
            _train(report, configuration.trainer, progress, arguments.verbose)
            # What the chief of several workers has exported, it alone looks at.
            if worker_index() == 0:
                answer = _evaluate(report, run, progress, arguments.verbose) if arguments.stage == "all" else None
                with _timed("report", report, progress):
                    report.page = _report(report, run, answer, titles, arguments.verbose)
                if sample is not None and sample.test is not None:
                    with _timed("test", report, progress):
                        report.test = _test(report, configuration.pipeline, sample, progress)
    finally:
        progress.close()
    print(summary(report), end="")


def _plan(configuration: Configuration, verbose: bool) -> str:
    if not configuration.pipeline.input.patterns and configuration.pipeline.input.format != "bigquery":
        raise UsageError("there is nothing to plan for generated data; name a log with --input")
    with silent_imports(verbose):
        from dotbias.cli.stages.plan_report import plan_report
        from pipeline.planning.estimate import make_plan
    return plan_report(make_plan(configuration.pipeline), configuration)


def _check_workers(stage: Stage) -> None:
    """Several workers train one model together; what else there is would be done by each, into the same files."""
    try:
        several = num_workers() > 1
    except DotbiasError as error:
        raise UsageError(str(error)) from None
    if several and (stage in ("tune", "compare_encodings") or (stage == "evaluate" and worker_index())):
        raise UsageError(
            f"--stage {stage} is the work of one process, and TF_CONFIG names {num_workers()} workers; start it once, "
            "without TF_CONFIG"
        )


def _check_input(config: PipelineConfig) -> None:
    """The same failure later, say of a file that has vanished, is one of the job."""
    try:
        match_input(config.input.patterns)
    except InputError as error:
        raise UsageError(str(error)) from None


@contextmanager
def _timed(stage: str, report: RunReport, progress: ProgressDisplay) -> Iterator[None]:
    started = time.monotonic()
    yield
    progress.close()
    report.seconds[stage] = time.monotonic() - started


def _with_input(config: PipelineConfig, sample: SampleData | None) -> PipelineConfig:
    if sample is None:
        return config
    return config.model_copy(update={"input": config.input.model_copy(update={"patterns": (sample.train,)})})


def _preprocess(
    report: RunReport, config: PipelineConfig, for_beam: list[str], progress: ProgressDisplay, verbose: bool
) -> DatasetManifest | Submission:
    # A table is looked up by the job's own code.
    if config.input.format != "bigquery":
        finished = existing_manifest(report.dataset, config, match_input(config.input.patterns))
        if finished is not None:
            report.already_done.append("preprocess")
            return finished
    if num_workers() > 1:
        raise UsageError(
            f"{report.dataset} is not complete, and each of the {num_workers()} workers of TF_CONFIG would make it; "
            "run --stage preprocess once, without TF_CONFIG, and then this again"
        )
    with _timed("preprocess", report, progress):
        # Beam's worker processes have to find the package from wherever this command was started.
        root = str(Path(__file__).resolve().parents[3])
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        with silent_imports(verbose):
            from pipeline.preprocess import preprocess
        return preprocess(report.dataset, config, for_beam, progress)


def _train(report: RunReport, config: TrainerConfig, progress: ProgressDisplay, verbose: bool) -> None:
    with silent_imports(verbose):
        from trainer.train import is_complete, train
    if is_complete(report.dataset, report.model, config):
        report.already_done.append("train")
        report.metrics = train(report.dataset, report.model, config)
        return
    with _timed("train", report, progress):
        report.metrics = train(report.dataset, report.model, config, progress)


def _evaluate(report: RunReport, run: str, progress: ProgressDisplay, verbose: bool) -> StoredEvaluation | None:
    """Measures the model on the eval rows, where that can be done; if not, the report says why, and nothing fails."""
    assert report.manifest is not None
    if reason := why_not_evaluated(report.manifest, available_bytes()):
        report.verdict = [f"none: {reason}"]
        return None
    with silent_imports(verbose):
        from dotbias.evaluation.evaluate import evaluate
        from dotbias.evaluation.request import EvaluationRequest
    with _timed("evaluate", report, progress):
        answer = evaluate(EvaluationRequest(run, "eval", InputConfig()), progress)
    if answer.reused:
        report.already_done.append("evaluate")
        del report.seconds["evaluate"]
    report.verdict = verdict_lines(answer.evaluation)
    return answer


def _report(
    report: RunReport, run: str, answer: StoredEvaluation | None, titles: Mapping[str, Mapping[str, str]], verbose: bool
) -> str | None:
    """Of a training and its evaluation once: a later one, say of new files, may have written a page that says more."""
    nothing_new = "train" in report.already_done and (answer is None or answer.reused)
    if nothing_new and not titles and (known := find_report(run)):
        return known
    evaluation = None if answer is None else answer.evaluation
    export = join(report.model, "export") if evaluation is None else evaluation.subject.export
    return write_run_report(run, verbose, directory=run, export=export, evaluation=evaluation, titles=titles)


def _test(report: RunReport, config: PipelineConfig, sample: SampleData, progress: ProgressDisplay) -> HeldOutResult:
    """Measures the export of a training once; a second start reads what was found."""
    assert sample.test is not None and sample.ceiling_auc is not None
    known = Path(report.model, _TEST_NAME)
    if "train" not in report.already_done or not known.exists():
        from dotbias.cli.stages.held_out import held_out_auc

        assert report.manifest is not None
        auc = held_out_auc(join(report.model, "export"), sample.test, config, report.manifest, progress)
        write_json(known, {"auc": auc, "ceiling_auc": sample.ceiling_auc})
    return HeldOutResult(**read_json(known))
