"""Computes intervals of metrics by resampling users.

Rows of a user depend on each other: they share a taste and a vector. Resampling rows would treat them as independent
and give intervals that are too narrow, so all rows of a user are drawn together (cluster bootstrap: A. Davison and
D. Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). The weight of a row is how
often its user was drawn: a Poisson variable of mean 1 for each user, which is close to drawing as many users as there
are, with replacement (N. Chamandy et al., "Estimating Uncertainty for Massive Data Streams", 2012).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse
import scipy.stats

from dotbias.evaluation.measure.metrics import (
    METRICS,
    Positive,
    Probabilities,
    all_metrics,
    calibration_bins,
    log_losses,
)
from dotbias.evaluation.results import Estimate

Key = TypeVar("Key", bound=Hashable)
Users = npt.NDArray[np.integer]
# How often each user was drawn in each of some resamples, `[users, resamples]`.
Weights = npt.NDArray[np.float32]

# The metrics of slices and comparisons.
CORE = ("auc", "log-loss")
ALL = tuple(METRICS)

# A thousand resamples fix the ends of an interval to a twentieth of its width, a hundred to a seventh; with millions of
# rows the interval is narrow anyway. A resample takes about two nanoseconds a row.
_MOST_RESAMPLES, _FEWEST_RESAMPLES = 1000, 100
_ROWS_OF_ALL_RESAMPLES = 200_000_000
# The weights of a user lie side by side, some cache lines long; all weights take at most 128 MiB, unless one resample
# alone takes more.
_RESAMPLES_AT_A_TIME, _WEIGHTS_AT_A_TIME = 64, 1 << 25
_USERS_AT_A_TIME = 1 << 14
# Predictions are rounded to this many levels; rows of a level count as ties. AUC is off by less than 1e-6 and PR-AUC by
# less than 1e-4, far less than any interval. A multiple of the number of calibration bins.
_LEVELS = 4000
# Quantiles of the Poisson distribution of mean 1 in steps of 2 ** -16: a random index draws from it.
_POISSON = scipy.stats.poisson.ppf((np.arange(1 << 16) + 0.5) / (1 << 16), 1).astype(np.float32)
_OF_CURVES = {"auc", "pr-auc", "ece"}
# With fewer users, there is no interval.
FEWEST_USERS = 10

_TAILS = (0.025, 0.975)


def num_resamples(rows: int) -> int:
    """Chooses the number of resamples: as many as take seconds, between 100 and 1,000."""
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
    """Computes metrics by name, each with its interval.

    Args:
        probability: `[rows]`, in [0, 1].
        positive: `[rows]`.
        users: `[rows]`, any integers; equal ones are one user.
        metrics: some of `ALL`.
        resamples: None: `num_resamples`.
        seed: the same one gives the same intervals.
    """
    values = all_metrics(probability, positive, metrics)
    drawn = resampled([probability], positive, users, metrics=metrics, resamples=resamples, seed=seed)
    if "ece" in drawn:
        # Chance can only raise ECE, and resampling raises it by the same amount again, so that amount is subtracted.
        drawn["ece"] = np.maximum(drawn["ece"] + values["ece"] - np.nanmedian(drawn["ece"]), 0)
    return {name: interval(values[name], drawn[name][0] if name in drawn else None) for name in metrics}


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
    """Computes metrics of `second` minus those of `first`, two predictions of the same rows, with intervals.

    Both are measured on the same resamples, so rows that are hard for both do not widen the interval.
    """
    before, after = (all_metrics(probability, positive, metrics) for probability in (first, second))
    drawn = resampled([first, second], positive, users, metrics=metrics, resamples=resamples, seed=seed)
    return {
        name: interval(after[name] - before[name], drawn[name][1] - drawn[name][0] if name in drawn else None)
        for name in metrics
    }


def mean_estimate(values: npt.NDArray[np.floating], *, resamples: int = _MOST_RESAMPLES, seed: int = 0) -> Estimate:
    """Computes the mean of one number for each user, `[users]`, with the interval from resampled users."""
    return mean_estimates({"": values}, resamples=resamples, seed=seed)[""]


def mean_estimates(
    values: Mapping[Key, npt.NDArray[np.floating]], *, resamples: int = _MOST_RESAMPLES, seed: int = 0
) -> dict[Key, Estimate]:
    """Computes the means of several numbers for each user, `[users]` each, with intervals from the same resamples.

    To draw the resamples takes ten times as long as to compute a mean in each.
    """
    numbers = np.stack(list(values.values()))
    users = numbers.shape[1]
    if not users:
        return {name: Estimate(value=None) for name in values}
    drawn: Sequence[npt.NDArray[np.float64] | None] = [None] * len(numbers)
    if users >= FEWEST_USERS:
        weighted = np.concatenate([numbers, np.ones((1, users))]).astype(np.float32)
        totals = [_weighted_sums(weighted, weights) for weights in _draws(users, resamples, seed)]
        *sums, drawn_users = np.concatenate(totals, axis=1)
        with np.errstate(invalid="ignore"):
            # With few users, a resample can be empty.
            drawn = [of_number / drawn_users for of_number in sums]
    means = numbers.mean(axis=1).tolist()
    return {name: interval(*of) for name, of in zip(values, zip(means, drawn, strict=True), strict=True)}


def _weighted_sums(values: npt.NDArray[np.float32], weights: Weights) -> npt.NDArray[np.float64]:
    """Multiplies `[sums, users]` by `[users, resamples]`: `[sums, resamples]`.

    It adds in float32, the type of the weights, since a conversion would copy them, and only some thousand users at a
    time, so that rounding errors stay small. It does not use BLAS, whose threads wait for each other on a busy machine.
    """
    total = np.zeros((len(values), weights.shape[1]))
    for start in range(0, len(weights), _USERS_AT_A_TIME):
        part = slice(start, start + _USERS_AT_A_TIME)
        total += np.einsum("su,ur->sr", values[:, part], weights[part])
    return total


def resampled(
    predictions: Sequence[Probabilities],
    positive: Positive,
    users: Users,
    *,
    metrics: Sequence[str] = ALL,
    resamples: int | None = None,
    seed: int = 0,
) -> dict[str, npt.NDArray[np.float64]]:
    """Measures several predictions of the same rows on the same resamples: by metric, `[predictions, resamples]`.

    A metric is NaN in a resample that lacks a class that it needs. Empty with fewer than `FEWEST_USERS` users.
    """
    distinct, users = np.unique(users, return_inverse=True)
    if len(distinct) < FEWEST_USERS:
        return {}
    count = num_resamples(len(positive)) if resamples is None else resamples
    measured = [_Resampler(probability, positive, users, len(distinct), metrics) for probability in predictions]
    blocks: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in metrics}
    for weights in _draws(len(distinct), count, seed):
        values = [resampler.measure(weights) for resampler in measured]
        for name in metrics:
            blocks[name].append(np.stack([of_one[name] for of_one in values]))
    return {name: np.concatenate(block, axis=1) for name, block in blocks.items()}


def _draws(users: int, resamples: int, seed: int) -> Iterator[Weights]:
    """Draws how often each user is in each resample, in blocks of resamples."""
    rng = np.random.default_rng(seed)
    block = int(np.clip(_WEIGHTS_AT_A_TIME // users, 1, _RESAMPLES_AT_A_TIME))
    for start in range(0, resamples, block):
        shape = (users, min(block, resamples - start))
        yield _POISSON[rng.integers(0, len(_POISSON), shape, np.uint16)]


def interval(value: float, drawn: npt.NDArray[np.float64] | None) -> Estimate:
    """Makes an estimate of a value and its values in resamples: the 95 % interval. NaN becomes None."""
    if np.isnan(value):
        return Estimate(value=None)
    if drawn is None or np.isnan(drawn).all():
        return Estimate(value=value)
    low, high = np.nanquantile(drawn, _TAILS)
    return Estimate(value=value, low=float(low), high=float(high))


class _Resampler:
    """Holds sums by user, from which the metrics of a resample are computed.

    A sparse matrix has the number of rows by level of the prediction, class and user. Its product with the weights of a
    block of resamples gives the ROC and PR curves of all of them at once.
    """

    def __init__(
        self, probability: Probabilities, positive: Positive, users: Users, num_users: int, metrics: Sequence[str]
    ) -> None:
        self._metrics = metrics
        p = probability.astype(np.float64)
        by_row: dict[str, Callable[[], npt.NDArray[np.generic]]] = {
            "log-loss": lambda: log_losses(probability, positive),
            "accuracy": lambda: (probability >= 0.5) == positive,
            "brier": lambda: (p - positive) ** 2,
            "prediction_mean": lambda: p,
            "label_mean": lambda: positive,
        }
        self._summed = [name for name in by_row if name in metrics]
        sums = [np.bincount(users, weights=by_row[name](), minlength=num_users) for name in self._summed]
        self._sums = np.stack([np.bincount(users, minlength=num_users), *sums]).astype(np.float32)
        if _OF_CURVES & set(metrics):
            level = _levels(probability)
            levels = int(level.max()) + 1
            self._counts = scipy.sparse.csr_array(
                (np.ones(len(p), np.float32), (2 * level + positive, users)), (2 * levels, num_users)
            )
            self._level_means = np.bincount(level, weights=p) / np.bincount(level)
            first = np.unique(level, return_index=True)[1]
            self._bins = np.append(0, np.flatnonzero(np.diff(calibration_bins(probability)[first])) + 1)

    def measure(self, weights: Weights) -> dict[str, npt.NDArray[np.float64]]:
        """Computes the metrics, each `[resamples]`, from weights `[users, resamples]`; NaN where rows are missing."""
        with np.errstate(invalid="ignore", divide="ignore"):
            total, *sums = _weighted_sums(self._sums, weights)
            values = {name: of_metric / total for name, of_metric in zip(self._summed, sums, strict=True)}
            return values | (self._of_curves(weights, total) if _OF_CURVES & set(self._metrics) else {})

    def _of_curves(self, weights: Weights, total: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
        # `[resamples, levels]`: sums over adjacent numbers are several times as fast.
        by_class = (self._counts @ weights).T.astype(np.float64, order="C")
        negative, positive = (np.ascontiguousarray(by_class[:, of::2]) for of in (0, 1))
        # From the highest level down: true and false positives of a threshold at the lower end of each level.
        found, wrong = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
        # Ties count half.
        area = (negative * (found - positive / 2)).sum(axis=1)
        precision = np.nan_to_num(found / (found + wrong))
        values = {
            "auc": area / (found[:, -1] * wrong[:, -1]),
            "pr-auc": (positive * precision).sum(axis=1) / found[:, -1],
        }
        if "ece" in self._metrics:
            errors = self._level_means * (negative + positive) - positive
            values["ece"] = np.abs(np.add.reduceat(errors, self._bins, axis=1)).sum(axis=1) / total
        return values


def _levels(probability: Probabilities) -> npt.NDArray[np.int64]:
    """Maps each prediction to a level, `[rows]`, 0 for the highest: distinct values, or quantiles if they are many."""
    edges = np.unique(probability)[1:]
    if len(edges) >= _LEVELS:
        # `np.quantile` takes more than ten times as long for so many.
        places = np.linspace(0, 1, _LEVELS + 1)[1:-1] * (len(probability) - 1)
        edges = np.unique(np.interp(places, np.arange(len(probability)), np.sort(probability)))
    level = len(edges) - np.searchsorted(edges, probability, side="right")
    # Some levels may have no rows.
    return (np.cumsum(np.bincount(level) > 0) - 1)[level]
