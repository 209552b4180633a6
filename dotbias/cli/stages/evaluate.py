"""Runs the stage `evaluate`: measures an exported model on a split of a run's dataset or on new files."""

from __future__ import annotations

import time

from dotbias.cli.console.evaluation_summary import evaluation_summary
from dotbias.cli.console.facts import evaluation_facts
from dotbias.cli.console.logs import silent_imports
from dotbias.cli.console.progress import ProgressDisplay
from dotbias.cli.failures import UsageError
from dotbias.cli.flags import FAIL_ON, RUN_FLAGS, TITLES, Flag
from dotbias.cli.stage import Arguments, Outcome, Stage
from dotbias.cli.steps.evaluation import titles_by_feature
from dotbias.cli.steps.packages import MEASURING, require_packages
from dotbias.cli.steps.prepare import check_input, check_workers, is_chief, prepare
from dotbias.cli.steps.report import write_run_report
from dotbias.evaluation.verdict import verdict
from pipeline.manifest import read_manifest
from pipeline.storage.paths import is_remote

_SPLIT = Flag("--split", "what to evaluate; default: eval, without --input", {"choices": ("eval", "train")})
_EXPORT = Flag("--export", "the exported model to evaluate; default: the run's own", {"metavar": "DIRECTORY"})

_SHARE = Flag(
    "--sample_users",
    "measure a random share of the users, in (0, 1], where all rows do not fit memory",
    {"metavar": "SHARE", "type": float, "default": 1.0},
)
_BESIDE = Flag(
    "--beside", "another exported model, whose lists are compared for the same users", {"metavar": "DIRECTORY"}
)


def run(arguments: Arguments) -> Outcome:
    """Evaluates, unless that is done already, and writes a report.

    The report on the run's own export is the report of the run; that on another export is beside its evaluation.

    Raises:
        UsageError: the packages of the extra `evaluation` are not installed.
        DotbiasError: there is no dataset, model or row to evaluate, or they do not fit each other.
    """
    split, given_export = arguments.own["split"], arguments.own["export"]
    if split is not None and arguments.input:
        raise UsageError("--stage evaluate takes either --split, for the dataset, or --input, for new files; drop one")
    share = arguments.own["sample_users"]
    if not 0 < share <= 1:
        raise UsageError(f"--sample_users should be above 0 and at most 1. Received: {share}")
    prepared = prepare(arguments, reads_log=False)
    configuration, run = prepared.configuration, prepared.run
    if arguments.input:
        check_input(configuration)
    check_workers(arguments.stage, one_process=not is_chief())
    titles = titles_by_feature(arguments.own["titles"], configuration)
    require_packages(arguments.stage, MEASURING, "trainer,evaluation")
    if not is_remote(run):
        # Fails before TensorFlow is imported if the dataset is missing.
        read_manifest(prepared.dataset)
    with silent_imports(arguments.verbose):
        from dotbias.evaluation.evaluate import evaluate
        from dotbias.evaluation.request import EvaluationRequest
    request = EvaluationRequest(
        run,
        split or (None if arguments.input else "eval"),
        configuration.pipeline.input,
        given_export,
        arguments.own["beside"],
        share,
    )
    started = time.monotonic()
    with ProgressDisplay() as progress:
        answer = evaluate(request, progress)
    seconds = None if answer.reused else time.monotonic() - started
    page = write_run_report(
        run,
        arguments.verbose,
        directory=run if given_export is None else answer.directory,
        export=answer.evaluation.subject.export,
        evaluation=answer.evaluation,
        titles=titles,
    )
    decided = verdict(answer.evaluation)
    return Outcome(
        evaluation_summary(answer.evaluation, answer.directory, seconds, page),
        evaluation_facts(answer.evaluation, decided, answer.directory, seconds, page),
        decided,
    )


STAGE = Stage(
    "evaluate",
    "measures an exported model on a split of the dataset, or on the new files of --input",
    (*RUN_FLAGS, _SPLIT, _EXPORT, _BESIDE, _SHARE, TITLES, FAIL_ON),
    run,
)
