"""Evaluates a model at the end of a run, or says why it cannot; reads the titles of items."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dotbias.cli.configuration.load import Configuration
from dotbias.cli.console.evaluation_summary import verdict_lines
from dotbias.cli.console.logs import silent_imports
from dotbias.cli.console.progress import ProgressDisplay
from dotbias.cli.console.summary import RunReport
from dotbias.cli.failures import UsageError
from dotbias.cli.steps.packages import DRAWING, MEASURING, missing_package, needs
from dotbias.cli.steps.report import find_report, write_run_report
from dotbias.evaluation.request import EmptySampleError, EvaluationRequest
from dotbias.evaluation.stored import StoredEvaluation, stored_evaluation, wanted
from dotbias.evaluation.titles import read_titles
from dotbias.evaluation.verdict import Verdict, sentence, verdict
from pipeline.config import InputConfig
from pipeline.manifest import DatasetManifest, DotbiasError, join
from trainer.devices.memory import available_bytes

Titles = Mapping[str, Mapping[str, str]]

# Memory for each train and eval row: 60 bytes were measured with vocabularies; hashed ids that are text take more.
_BYTES_PER_ROW = 150


def evaluate_at_end(report: RunReport, run: str, progress: ProgressDisplay, verbose: bool) -> StoredEvaluation | None:
    """Evaluates the model on the eval rows; puts the verdict, or the reason why there is none, into `report`.

    If the rows do not fit memory, those of a sample of users are measured.
    """
    assert report.manifest is not None
    if reason := why_not_evaluated(report.manifest):
        _not_evaluated(report, reason)
        return None
    request = EvaluationRequest(run, "eval", InputConfig(), share=share_that_fits(report.manifest, available_bytes()))
    # Another sample does as well, since the share follows from what is free at the moment.
    answer = stored_evaluation(wanted(request), any_share=request.share < 1)
    if answer is not None:
        report.already_done.append("evaluate")
    else:
        with report.timed("evaluate", progress):
            with silent_imports(verbose):
                from dotbias.evaluation.evaluate import evaluate
            try:
                answer = evaluate(request, progress)
            except EmptySampleError as error:
                _not_evaluated(report, f"more users do not fit memory, and {error}".rstrip("."))
                return None
    report.verdict = verdict(answer.evaluation)
    report.verdict_lines = verdict_lines(report.verdict, answer.evaluation)
    return answer


def _not_evaluated(report: RunReport, reason: str) -> None:
    report.verdict = Verdict(kind="none", headline="Not evaluated", reasons=[sentence(reason)])
    report.verdict_lines = [f"none: {reason}"]


def report_on_run(
    report: RunReport, run: str, answer: StoredEvaluation | None, titles: Titles, verbose: bool
) -> str | None:
    """Writes the report of a run unless it exists and nothing is new; never overwrites a fuller one."""
    nothing_new = "train" in report.already_done and (answer is None or answer.reused)
    if nothing_new and not titles and (known := find_report(run)):
        return known
    evaluation = None if answer is None else answer.evaluation
    export = join(report.model, "export") if evaluation is None else evaluation.subject.export
    return write_run_report(run, verbose, directory=run, export=export, evaluation=evaluation, titles=titles)


def why_not_evaluated(manifest: DatasetManifest) -> str:
    """Returns why a run cannot be evaluated at its end, which is no failure; empty if it can."""
    if missing := missing_package((*MEASURING, *DRAWING)):
        return needs("an evaluation", missing, "evaluation")
    if not manifest.splits["eval"].rows:
        return "there are no eval rows; --stage evaluate --input measures the model on new files"
    return ""


def share_that_fits(manifest: DatasetManifest, available: int | None) -> float:
    """Returns the share of users whose rows fit memory: 1, or a power of 1/2, so that machines of one size agree.

    Args:
        manifest: the dataset's.
        available: bytes of memory; None if unknown.
    """
    needed = _BYTES_PER_ROW * sum(split.rows for split in manifest.splits.values())
    if available is None or needed <= available:
        return 1.0
    return float(2.0 ** -math.ceil(math.log2(needed / max(available, 1))))


def titles_by_feature(path: str | None, configuration: Configuration) -> dict[str, Mapping[str, str]]:
    """Reads the titles in a file: for each feature of the items, title by token. Returns {} without a file.

    Raises:
        UsageError: the file holds no titles.
    """
    if path is None:
        return {}
    features = configuration.pipeline.features
    try:
        return read_titles(path, [name for name, feature in features.items() if feature.side == "item"])
    except DotbiasError as error:
        raise UsageError(f"--titles: {error}") from None
