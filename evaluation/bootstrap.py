"""Intervals of metrics by resampling users.

Rows of a user depend on each other: they share a taste and a vector. To resample rows would treat a thousand rows of
one user as a thousand witnesses, and give intervals that are too narrow; here a user's rows come and go together (the
cluster bootstrap: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). A resample draws
as many users as there are, with replacement; a row's weight is how often its user was drawn. The rows are put in the
order of their predictions once, and a weighted AUC is then two cumulative sums.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from evaluation.metrics import Positive, Probabilities, all_metrics, calibration_bins, log_losses
from evaluation.results import Estimate

Users = npt.NDArray[np.integer]

# Of all metrics, those that the rows of a slice, or a comparison, need.
CORE = ("auc", "log-loss")
ALL = ("auc", "pr-auc", "accuracy", "log-loss", "brier", "ece", "prediction_mean", "label_mean")

# A thousand settle the ends of an interval to a twentieth of its width, a hundred to a seventh; of ten million rows the
# interval is narrow anyway. A resample takes about 20 ns a row.
_MOST_RESAMPLES, _FEWEST_RESAMPLES = 1000, 100
_ROWS_OF_ALL_RESAMPLES = 200_000_000
# With fewer there is nothing to say about users who are not here.
FEWEST_USERS = 10

_TAILS = (0.025, 0.975)


def num_resamples(rows: int) -> int:
    """As many as can be had in seconds, but enough."""
    return int(np.clip(_ROWS_OF_ALL_RESAMPLES // max(rows, 1), _FEWEST_RESAMPLES, _MOST_RESAMPLES))


def estimates(
    probability: Probabilities,
    positive: Positive,
    users: Users,
    *,
    metrics: Sequence[str] = ALL,
    resamples: int | None = None,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Metrics by name, each with its interval.

    Args:
        probability: `[rows]`, in [0, 1].
        positive: `[rows]`.
        users: `[rows]`, any integers; equal ones are one user.
        metrics: some of `ALL`.
        resamples: None: `num_resamples`.
        seed: the same one gives the same intervals.
    """
    values = all_metrics(probability, positive)
    drawn = resampled([probability], positive, users, metrics=metrics, resamples=resamples, seed=seed)
    return {name: _estimate(values[name], drawn[name][0] if name in drawn else None) for name in metrics}


def differences(
    first: Probabilities,
    second: Probabilities,
    positive: Positive,
    users: Users,
    *,
    metrics: Sequence[str] = CORE,
    resamples: int | None = None,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Metrics of `second` less those of `first`, two predictions of the same rows, with intervals.

    Both are measured on the same resamples, so that what makes rows hard for both falls out of the difference.
    """
    before, after = (all_metrics(probability, positive) for probability in (first, second))
    drawn = resampled([first, second], positive, users, metrics=metrics, resamples=resamples, seed=seed)
    return {
        name: _estimate(after[name] - before[name], drawn[name][1] - drawn[name][0] if name in drawn else None)
        for name in metrics
    }


def mean_estimate(values: npt.NDArray[np.floating], *, resamples: int = _MOST_RESAMPLES, seed: int = 0) -> Estimate:
    """The mean of one number a user, `[users]`, with the interval of resampled users."""
    if not len(values):
        return Estimate(value=None)
    drawn = None
    if len(values) >= FEWEST_USERS:
        rng = np.random.default_rng(seed)
        drawn = np.array([_draw(rng, len(values)) @ values / len(values) for _ in range(resamples)])
    return _estimate(float(values.mean()), drawn)


def resampled(
    predictions: Sequence[Probabilities],
    positive: Positive,
    users: Users,
    *,
    metrics: Sequence[str] = ALL,
    resamples: int | None = None,
    seed: int = 0,
) -> dict[str, npt.NDArray[np.float64]]:
    """Each metric of each of several predictions of the same rows, on the same resamples: `[predictions, resamples]`.

    A metric is NaN in a resample that is without one of the classes. Empty with fewer than `FEWEST_USERS` users.
    """
    distinct, users = np.unique(users, return_inverse=True)
    if len(distinct) < FEWEST_USERS:
        return {}
    count = num_resamples(len(positive)) if resamples is None else resamples
    measured = [_Resampler(probability, positive, users, len(distinct), metrics) for probability in predictions]
    drawn = {name: np.empty((len(predictions), count)) for name in metrics}
    rng = np.random.default_rng(seed)
    for index in range(count):
        weight = _draw(rng, len(distinct))
        for number, resampler in enumerate(measured):
            for name, value in resampler.measure(weight).items():
                drawn[name][number, index] = value
    return drawn


def _draw(rng: np.random.Generator, users: int) -> npt.NDArray[np.float64]:
    """How often each user is drawn, `[users]`."""
    return np.bincount(rng.integers(0, users, users), minlength=users).astype(np.float64)


def _estimate(value: float, drawn: npt.NDArray[np.float64] | None) -> Estimate:
    if np.isnan(value):
        return Estimate(value=None)
    if drawn is None or np.isnan(drawn).all():
        return Estimate(value=value)
    low, high = np.nanquantile(drawn, _TAILS)
    return Estimate(value=value, low=float(low), high=float(high))


class _Resampler:
    """The rows in the order of falling predictions, and what of the metrics can be summed up by user beforehand."""

    def __init__(
        self, probability: Probabilities, positive: Positive, users: Users, num_users: int, metrics: Sequence[str]
    ) -> None:
        self._metrics = metrics
        p = probability.astype(np.float64)
        by_row = {
            "log-loss": lambda: log_losses(probability, positive),
            "accuracy": lambda: (probability >= 0.5) == positive,
            "brier": lambda: (p - positive) ** 2,
            "prediction_mean": lambda: p,
            "label_mean": lambda: positive,
        }
        self._rows = np.bincount(users, minlength=num_users).astype(np.float64)
        self._sums = {
            name: np.bincount(users, weights=values(), minlength=num_users)
            for name, values in by_row.items()
            if name in metrics
        }
        order = np.argsort(-p, kind="stable")
        self._users, self._positive = users[order], positive[order].astype(np.float64)
        p = p[order]
        # The last row of each run of equal predictions; between its rows there is no threshold.
        ends = np.append(np.flatnonzero(np.diff(p)), len(p) - 1)
        self._ends = slice(None) if len(ends) == len(p) else ends
        if "ece" in metrics:
            bins = calibration_bins(probability)[order]
            self._errors = p - self._positive
            self._bins = np.append(0, np.flatnonzero(np.diff(bins)) + 1)

    def measure(self, weight: npt.NDArray[np.float64]) -> dict[str, float]:
        """The metrics with weights `[users]`."""
        total = weight @ self._rows
        values = {name: float(weight @ sums / total) for name, sums in self._sums.items()}
        if not {"auc", "pr-auc", "ece"} & set(self._metrics):
            return values
        by_row = weight[self._users]
        if "ece" in self._metrics:
            values["ece"] = float(np.abs(np.add.reduceat(by_row * self._errors, self._bins)).sum() / total)
        found = np.cumsum(by_row * self._positive)[self._ends]
        shown = np.cumsum(by_row)[self._ends]
        positives, negatives = found[-1], shown[-1] - found[-1]
        if "auc" in self._metrics:
            # Under each step to the right of the ROC curve, which is slanted where predictions are tied.
            wrong = shown - found
            area = wrong[0] * found[0] + np.diff(wrong) @ (found[1:] + found[:-1])
            values["auc"] = float(area / (2 * positives * negatives)) if positives and negatives else float("nan")
        if "pr-auc" in self._metrics:
            precision = np.divide(found, shown, out=np.zeros_like(found), where=shown > 0)
            area = found[0] * precision[0] + np.diff(found) @ precision[1:]
            values["pr-auc"] = float(area / positives) if positives else float("nan")
        return values
