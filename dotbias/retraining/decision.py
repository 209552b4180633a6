"""Defines `decision.json`: whether a challenger is published, and every check with its value."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dotbias.evaluation.formats import MISSING, number, signed, with_interval
from dotbias.evaluation.paired import Measured
from dotbias.evaluation.results import Estimate
from dotbias.retraining.gate import Check
from pipeline.manifest import DotbiasError

Outcome = Literal["promoted", "kept"]
METRICS = ("auc", "log_loss", "ndcg")


class Decision(BaseModel):
    """Holds the contents of `decision.json`.

    `outcome` is `promoted` if the run became champion, and `kept` if the former champion goes on serving; `reasons` say
    why it was kept. `champion` is the run that the challenger was compared with, and `gains` are the challenger's gains
    over it: positive is better. `refit_gains` are the gains of the champion's refit over the champion before the refit,
    on rows that neither has seen: the refit could not be measured before it was published. `version` is the directory
    in `serving/`, None if the run was not published. `warm_start` says where the training started: the `features` with
    the numbers of ids that were kept, new and gone, or why it was `cold`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    run_id: str
    date: datetime.date
    outcome: Outcome
    reasons: list[str]
    champion: str | None
    version: int | None
    train_rows: int
    eval_rows: int
    oov: dict[str, float]
    checks: list[Check]
    challenger_metrics: Measured
    champion_metrics: Measured | None
    gains: Measured | None
    refit_gains: Measured | None
    warm_start: dict[str, Any]

    @property
    def metric(self) -> Literal["auc", "ndcg"]:
        """Returns the metric that a model of this log is followed by: `ndcg` where rows have no labels."""
        return "auc" if self.challenger_metrics.auc.value is not None else "ndcg"

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: bytes, origin: str) -> Decision:
        """Raises `DotbiasError`, which names `origin`, if this version cannot read the text."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise DotbiasError(f"{origin}: `{where}`: {first['msg']}; delete the file and retrain.") from None


def decision_text(decision: Decision) -> str:
    """Formats a decision for the console: the metrics, then every check in a table."""
    what = {
        "promoted": f"{decision.run_id} is the champion now, version {decision.version}",
        "kept": f"{decision.champion or 'nothing'} goes on serving",
    }[decision.outcome]
    lines = [f"Decision    {decision.outcome}: {what}"]
    lines += [f"            {reason}" for reason in decision.reasons]
    lines.append(f"            {_start_text(decision.warm_start)}")
    if decision.champion_metrics is not None and decision.gains is not None:
        rows: list[tuple[str, ...]] = [("", "challenger", f"champion {decision.champion}", "gain")]
        rows += [
            (
                name.replace("_", " "),
                number(getattr(decision.challenger_metrics, name).value),
                number(getattr(decision.champion_metrics, name).value),
                _signed(getattr(decision.gains, name)),
            )
            for name in METRICS
        ]
    else:
        rows = [("", "challenger")]
        rows += [
            (name.replace("_", " "), with_interval(getattr(decision.challenger_metrics, name))) for name in METRICS
        ]
    lines += _indented(rows)
    lines += _indented(
        [
            ("check", "value", "limit", "", ""),
            *(
                (
                    check.name,
                    number(check.value) if check.value is not None else MISSING,
                    f"{check.rule} {check.limit:g}",
                    "passed" if check.passed else "FAILED",
                    check.note,
                )
                for check in decision.checks
            ),
        ]
    )
    return "\n".join(lines) + "\n"


def _start_text(warm_start: Mapping[str, Any]) -> str:
    """Says where the training began, and what became of the champion's ids."""
    if "features" not in warm_start:
        return f"trained from nothing: {warm_start.get('cold') or 'no reason is known'}"
    counts = (
        f"{name} {of['kept']:,} kept, {of['new']:,} new, {of['gone']:,} gone"
        for name, of in warm_start["features"].items()
    )
    return f"trained from the champion's weights: {'; '.join(counts)}"


def _signed(gain: Estimate) -> str:
    if gain.low is None:
        return signed(gain.value)
    return f"{signed(gain.value)} ({signed(gain.low)} to {signed(gain.high)})"


def _indented(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        ("            " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]
