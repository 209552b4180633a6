"""Reads and formats the decisions of an output root, night by night."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from dotbias.evaluation.formats import number, percent, signed
from dotbias.evaluation.paired import Measured
from dotbias.evaluation.results import Estimate
from dotbias.retraining.champion import Champion
from dotbias.retraining.decision import Decision
from dotbias.retraining.gate import failures
from dotbias.retraining.runs import RunPaths, dated_runs, published_versions
from pipeline.storage.files import read_file
from pipeline.storage.trees import exists

HISTORY_NAME = "history.html"
METRIC_NAMES = {"auc": "AUC", "log_loss": "Log loss", "ndcg": "NDCG@10"}


class Night(BaseModel):
    """Holds the decision of a run; `seconds` is None if its duration is unknown."""

    model_config = ConfigDict(frozen=True)

    decision: Decision
    seconds: float | None


class History(BaseModel):
    """Holds the decisions of all runs, the oldest first, the champion, and the warnings."""

    model_config = ConfigDict(frozen=True)

    champion: Champion | None
    nights: list[Night]
    warnings: list[str]


def read_history(root: str, champion: Champion | None, warn_after: int) -> History:
    """Reads the decisions below an output root.

    Args:
        root: the output root.
        champion: the run that serves.
        warn_after: nights in a row without a promotion that are a warning.
    """
    nights = []
    for name in dated_runs(root):
        paths = RunPaths(root, name)
        if exists(paths.decision):
            decision = Decision.from_json(read_file(paths.decision), paths.decision)
            seconds = sum(json.loads(read_file(paths.seconds)).values()) if exists(paths.seconds) else None
            nights.append(Night(decision=decision, seconds=seconds))
    warnings = warnings_of(nights, warn_after)
    if champion is not None and (above := [v for v in published_versions(root) if v > champion.version]):
        warnings.append(
            f"`serving/` has the version {above[-1]}, above the champion's {champion.version}, and TensorFlow Serving "
            "takes the highest; a command that was killed left it: start that command again, or delete the version"
        )
    return History(champion=champion, nights=nights, warnings=warnings)


def warnings_of(nights: Sequence[Night], warn_after: int) -> list[str]:
    """Returns the warnings for a monitor: no promotion for long, a refit that did harm, a champion that got worse."""
    warnings: list[str] = []
    if not nights:
        return warnings
    last = nights[-1].decision
    metric = METRIC_NAMES[last.metric]
    kept = 0
    for night in reversed(nights):
        if night.decision.outcome == "promoted":
            break
        kept += 1
    if kept >= warn_after:
        warnings.append(f"No promotion in the last {kept} nights; the last one failed: {_why(last) or 'see reasons'}")
    if last.refit_gains is not None:
        gain = _followed(last, last.refit_gains)
        if gain.high is not None and gain.high < 0:
            warnings.append(
                f"The refit of {last.champion} made it worse: {metric} {signed(gain.value)} "
                f"({signed(gain.low)} to {signed(gain.high)}) on rows that neither model had seen; "
                "consider `trainer.refit: false`"
            )
    before = next((night.decision for night in nights if night.decision.run_id == last.champion), None)
    if last.champion_metrics is not None and before is not None:
        promised, measured = _followed(last, before.challenger_metrics), _followed(last, last.champion_metrics)
        if promised.low is not None and measured.high is not None and measured.high < promised.low:
            warnings.append(
                f"The champion {last.champion} disappoints: {metric} {number(measured.value)} on the rows of "
                f"{last.date}, {number(promised.value)} when it was promoted"
            )
    return warnings


def history_text(history: History) -> str:
    """Formats a history as a table for the console."""
    if not history.nights:
        return "No run has decided yet.\n"
    header = ("date", "rows", "oov", METRIC_NAMES[history.nights[-1].decision.metric].lower(), "champion", "gain")
    rows = [(*header, "decision", "seconds"), *(_row(night) for night in history.nights)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    champion = history.champion
    if champion is not None:
        pinned = ", pinned" if champion.pinned else ""
        lines.append(f"\nServing     {champion.run_id}, version {champion.version}{pinned}")
    lines += [f"Warning     {warning}" for warning in history.warnings]
    return "\n".join(lines) + "\n"


def _row(night: Night) -> tuple[str, ...]:
    decision = night.decision
    return (
        decision.run_id,
        f"{decision.train_rows + decision.eval_rows:,}",
        " ".join(percent(share) for share in decision.oov.values()),
        _with_interval(_followed(decision, decision.challenger_metrics)),
        "" if decision.champion_metrics is None else _with_interval(_followed(decision, decision.champion_metrics)),
        "" if decision.gains is None else signed(_followed(decision, decision.gains).value),
        decision.outcome + (f": {_why(decision)}" if decision.outcome == "kept" else ""),
        "" if night.seconds is None else f"{night.seconds:,.0f}",
    )


def _followed(decision: Decision, measured: Measured) -> Estimate:
    """Returns the metric that models of the log are followed by."""
    return measured.auc if decision.metric == "auc" else measured.ndcg


def _why(decision: Decision) -> str:
    failed = failures(decision.checks)
    return failed[0].name if failed else "; ".join(decision.reasons)


def _with_interval(estimate: Estimate) -> str:
    if estimate.low is None:
        return number(estimate.value)
    return f"{number(estimate.value)} ({number(estimate.low)} to {number(estimate.high)})"


def history_json(history: History) -> dict[str, Any]:
    """Returns a history for machines."""
    found: dict[str, Any] = history.model_dump(mode="json")
    return found
