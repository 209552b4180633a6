"""Checks whether a challenger passes the gate and becomes champion, by plain arithmetic on measured values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from dotbias.evaluation.results import Estimate
from dotbias.retraining.config import DataConfig, FloorConfig, MarginConfig, SliceConfig

# Of NDCG, for a log without labels whose configuration does not say.
_IMPLICIT_MARGIN = 0.01


class Check(BaseModel):
    """Holds a condition: `value` has to be at least or at most `limit`.

    `value` is None if it is not defined, such as the AUC of rows of one class; `note` explains the value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    value: float | None
    rule: Literal["at least", "at most"]
    limit: float
    passed: bool
    note: str = ""


class DataFigures(BaseModel):
    """Holds the numbers of a dataset that are compared from run to run.

    `train_days` is the number of days from the first train row to the eval rows, None if the manifest does not say.
    `oov` is the OOV share by feature of the rows that the vocabularies count.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    train_rows: int
    train_days: int | None = None
    rejected: float
    label_mean: float | None
    oov: dict[str, float]


def at_least(name: str, value: float | None, limit: float, note: str = "", *, undefined: bool = False) -> Check:
    """Builds a check; a value that is not defined passes if `undefined` is true."""
    return Check(
        name=name,
        value=value,
        rule="at least",
        limit=limit,
        passed=undefined if value is None else value >= limit,
        note=note,
    )


def at_most(name: str, value: float | None, limit: float, note: str = "", *, undefined: bool = False) -> Check:
    """Builds a check; a value that is not defined passes if `undefined` is true."""
    return Check(
        name=name,
        value=value,
        rule="at most",
        limit=limit,
        passed=undefined if value is None else value <= limit,
        note=note,
    )


def margin_checks(gains: Mapping[str, Estimate | None], margin: MarginConfig, *, implicit: bool = False) -> list[Check]:
    """Checks that the challenger is not worse than the champion by more than the margin.

    Args:
        gains: by name `auc`, `log_loss`, `ndcg`: how much better the challenger is, with its interval; positive is
            better. None or missing where the metric is not defined, which fails, except `ndcg`: where nothing can be
            ranked, lists say nothing against the challenger.
        margin: what is allowed.
        implicit: whether the log has no labels; then `ndcg` alone decides, and has to be defined.
    """
    limits = {"auc": margin.auc, "log_loss": margin.log_loss, "ndcg": margin.ndcg}
    if implicit:
        limits = {"ndcg": _IMPLICIT_MARGIN if margin.ndcg is None else margin.ndcg}
    checks = []
    for name, allowed in limits.items():
        if allowed is None:
            continue
        gain = gains.get(name)
        low = None if gain is None else gain.low
        note = "lower end of the gain over the champion"
        if gain is not None and gain.value is not None and low is None:
            note = "too few users for an interval"
        elif low is None:
            note = "not defined on these rows"
        checks.append(at_least(f"gain in {name}", low, -allowed, note, undefined=name == "ndcg" and not implicit))
    return checks


def floor_checks(metrics: Mapping[str, Estimate], floors: FloorConfig) -> list[Check]:
    """Checks the values that the challenger must reach by itself.

    Args:
        metrics: of the challenger on the eval rows, with `auc`, `log-loss` and `label_mean`.
        floors: the values.
    """
    checks = []
    if floors.auc is not None:
        checks.append(at_least("auc", metrics["auc"].value, floors.auc, "of the challenger"))
    if floors.normalized_log_loss is not None:
        normalized = normalized_log_loss(metrics["log-loss"].value, metrics["label_mean"].value)
        note = "log loss over that of always predicting the mean label"
        checks.append(at_most("normalized log loss", normalized, floors.normalized_log_loss, note))
    return checks


def list_floor_checks(ndcg: float | None, floors: FloorConfig) -> list[Check]:
    """Checks what the lists of a challenger must reach by themselves; lists that were not measured fail."""
    return [] if floors.ndcg is None else [at_least("ndcg", ndcg, floors.ndcg, "of the challenger")]


def normalized_log_loss(log_loss: float | None, label_mean: float | None) -> float | None:
    """Divides a log loss by the entropy of the labels; None where rows are of one class.

    >>> round(normalized_log_loss(0.6, 0.5), 4)
    0.8656
    """
    if log_loss is None or label_mean is None or not 0 < label_mean < 1:
        return None
    return log_loss / -(label_mean * math.log(label_mean) + (1 - label_mean) * math.log(1 - label_mean))


def slice_checks(gains: Mapping[str, Estimate], slices: SliceConfig) -> list[Check]:
    """Checks that no slice lost more AUC than it may, beyond chance.

    Args:
        gains: the challenger's gain in AUC by slice: `new_users`, `new_items`, `<feature>: <value>`; a slice that is
            missing, or has no interval, says nothing against the challenger.
        slices: what each may lose.
    """
    allowed = {
        name: limit
        for name, limit in (("new_users", slices.new_users), ("new_items", slices.new_items))
        if limit is not None
    }
    for feature, limit in slices.features.items():
        allowed |= {name: limit for name in gains if name.startswith(f"{feature}: ")}
    return [_slice_check(name, gains.get(name), limit) for name, limit in allowed.items()]


def _slice_check(name: str, gain: Estimate | None, allowed: float) -> Check:
    label = f"gain in auc, {name.replace('_', ' ')}"
    if gain is None or gain.value is None or gain.high is None:
        return at_least(label, None, -allowed, "too few rows to compare", undefined=True)
    check = at_least(label, gain.value, -allowed, "counts only where the interval excludes 0")
    return check if gain.high < 0 else check.model_copy(update={"passed": True})


def data_checks(
    champion: DataFigures, challenger: DataFigures, psi: Mapping[str, float], config: DataConfig
) -> list[Check]:
    """Checks that the challenger's data look like the champion's.

    Args:
        champion: figures of its dataset.
        challenger: likewise.
        psi: population stability index of the frequencies by feature, see `drift.psi`.
        config: what is allowed.
    """
    checks = []
    ratio, note = challenger.train_rows / max(champion.train_rows, 1), "to the champion's"
    if challenger.train_days and champion.train_days:
        # A full run has the rows of a window, an incremental one those of a few days.
        ratio, note = ratio * champion.train_days / challenger.train_days, "rows a day, to the champion's"
    if config.min_rows_ratio is not None:
        checks.append(at_least("train rows, ratio", ratio, config.min_rows_ratio, note))
    if config.max_rows_ratio is not None:
        checks.append(at_most("train rows, ratio", ratio, config.max_rows_ratio, note))
    if config.rejected is not None:
        rise = challenger.rejected - champion.rejected
        checks.append(at_most("rise of the rejected share", rise, config.rejected))
    if config.oov is not None:
        for name in sorted(champion.oov.keys() & challenger.oov.keys()):
            rise = challenger.oov[name] - champion.oov[name]
            checks.append(at_most(f"rise of the OOV share, {name}", rise, config.oov))
    if config.label_mean is not None and None not in (champion.label_mean, challenger.label_mean):
        assert champion.label_mean is not None and challenger.label_mean is not None
        shift = abs(challenger.label_mean - champion.label_mean)
        checks.append(at_most("shift of the mean label", shift, config.label_mean))
    if config.psi is not None:
        checks += [at_most(f"PSI, {name}", value, config.psi) for name, value in sorted(psi.items())]
    return checks


def verdict_check(doubts: Sequence[str], stops: bool) -> Check:
    """Checks that the evaluation does not say "Do not ship"; `doubts` are its reasons."""
    return at_most("reasons not to ship", float(len(doubts)) if stops else 0.0, 0, "; ".join(doubts) if stops else "")


def failures(checks: Iterable[Check]) -> list[Check]:
    """Returns the checks that failed, in their order."""
    return [check for check in checks if not check.passed]
