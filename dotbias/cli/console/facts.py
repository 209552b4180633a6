"""Makes the summary for machines, `--json`: the content of the text as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dotbias.cli.console.summary import METRICS, RunReport
from dotbias.evaluation.results import EVALUATION_NAME, SLICES_NAME
from pipeline.manifest import MANIFEST_NAME, join

if TYPE_CHECKING:
    from dotbias.evaluation.results import Evaluation
    from dotbias.evaluation.verdict import Verdict


def run_facts(report: RunReport) -> dict[str, Any]:
    """Returns the facts about a run. A part that the stage does not make is None, and has no path."""
    paths = {}
    if report.manifest is not None:
        paths["dataset"] = join(report.dataset, MANIFEST_NAME)
    if report.metrics is not None:
        paths |= {"metrics": join(report.model, "metrics.json"), "export": join(report.model, "export")}
    if report.page is not None:
        paths["report"] = report.page
    for options in (report.tuning, report.comparison):
        if options is not None:
            paths["configuration"] = options.configuration
    return {
        "counts": None if report.manifest is None else report.manifest.counts.model_dump(mode="json"),
        "metrics": None if report.metrics is None else _eval_metrics(report.metrics),
        "verdict": None if report.verdict is None else verdict_facts(report.verdict),
        "test": None if report.test is None else asdict(report.test),
        "job_id": None if report.submission is None else report.submission.job_id,
        "paths": paths,
        "already_done": report.already_done,
        "seconds": {step: round(seconds, 3) for step, seconds in report.seconds.items()},
    }


def evaluation_facts(
    evaluation: Evaluation, decided: Verdict, directory: str, seconds: float | None, page: str | None
) -> dict[str, Any]:
    """Returns each metric as value, low and high. `seconds` is None if an earlier start measured it."""
    paths = {"evaluation": join(directory, EVALUATION_NAME), "slices": join(directory, SLICES_NAME)}
    return {
        "rows": evaluation.subject.rows,
        "sample": None if evaluation.subject.sample is None else evaluation.subject.sample.model_dump(),
        "metrics": {name: estimate.model_dump() for name, estimate in evaluation.metrics.items()},
        "verdict": verdict_facts(decided),
        "paths": paths if page is None else {**paths, "report": page},
        "already_done": ["evaluate"] if seconds is None else [],
        "seconds": {} if seconds is None else {"evaluate": round(seconds, 3)},
    }


def verdict_facts(decided: Verdict) -> dict[str, Any]:
    """Returns the verdict: `kind` (go, look, stop or none), `reasons` for not go, and all `checks`, passed or not."""
    return decided.model_dump(include={"kind", "headline", "reasons", "checks"})


def _eval_metrics(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    known = metrics.get("eval") or {}
    return {name: known[name] for name in METRICS if name in known}
