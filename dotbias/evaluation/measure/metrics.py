"""Computes metrics of probabilities against positive or not. Pure functions of arrays; undefined values are NaN.

Throughout, `probability` is `[rows]`, P(positive) in [0, 1], and `positive` is bool `[rows]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import sklearn.metrics

from dotbias.evaluation.results import CalibrationBin, Curve

Probabilities = npt.NDArray[np.floating]
Positive = npt.NDArray[np.bool_]

# As in `trainer.model.calibration.log_loss`: a wrong probability of 0 or 1 costs 16 nats, not infinitely many.
_SMALLEST = 1e-7
# A curve with more points looks the same.
CURVE_POINTS = 200
CALIBRATION_BINS = 10


def all_metrics(probability: Probabilities, positive: Positive, names: Sequence[str] | None = None) -> dict[str, float]:
    """Computes the metrics of `results.Evaluation` by name: those of `names`, or all."""
    return {name: METRICS[name](probability, positive) for name in names or METRICS}


def auc(probability: Probabilities, positive: Positive) -> float:
    """Computes the area under the ROC curve: the share of (positive, negative) pairs in the right order, ties half.

    >>> auc(np.array([0.9, 0.4, 0.6, 0.1]), np.array([True, True, False, False]))
    0.75
    """
    if not has_both_classes(positive):
        return float("nan")
    return float(sklearn.metrics.roc_auc_score(positive, probability))


def pr_auc(probability: Probabilities, positive: Positive) -> float:
    """Computes the average precision: precision weighted by the gain in recall over thresholds, not interpolated."""
    if not positive.any():
        return float("nan")
    return float(sklearn.metrics.average_precision_score(positive, probability))


def has_both_classes(positive: Positive) -> bool:
    return bool(positive.any()) and not bool(positive.all())


def accuracy(probability: Probabilities, positive: Positive) -> float:
    """Computes the share of rows that are positive where the probability is at least 0.5, and negative elsewhere.

    >>> accuracy(np.array([0.9, 0.4, 0.6, 0.1]), np.array([True, True, False, False]))
    0.5
    """
    return _mean((probability >= 0.5) == positive)


def log_loss(probability: Probabilities, positive: Positive) -> float:
    """Computes the mean of -log P(class of the row), in nats.

    >>> round(log_loss(np.array([0.9, 0.4]), np.array([True, False])), 4)
    0.3081
    """
    return _mean(log_losses(probability, positive))


def log_losses(probability: Probabilities, positive: Positive) -> npt.NDArray[np.float64]:
    """Computes -log P(class of the row), `[rows]`, in nats."""
    p = np.where(positive, probability, 1 - probability.astype(np.float64))
    return -np.log(np.clip(p, _SMALLEST, 1 - _SMALLEST))


def brier(probability: Probabilities, positive: Positive) -> float:
    """Computes the mean squared error of the probability.

    >>> round(brier(np.array([0.9, 0.4]), np.array([True, False])), 4)
    0.085
    """
    return _mean((probability.astype(np.float64) - positive) ** 2)


def calibration_bins(probability: Probabilities, bins: int = CALIBRATION_BINS) -> npt.NDArray[np.int64]:
    """Puts rows into bins of equally many rows, `[rows]` in [0, bins); equal probabilities share a bin."""
    edges = np.unique(np.quantile(probability, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.searchsorted(edges, probability, side="right")


def calibration_table(
    probability: Probabilities, positive: Positive, bins: int = CALIBRATION_BINS
) -> list[CalibrationBin]:
    """Computes the mean prediction and the share of positive rows by decile of the prediction."""
    if not len(probability):
        return []
    number = calibration_bins(probability, bins)
    table = []
    for value in np.unique(number):
        p, y = probability[number == value], positive[number == value]
        table.append(
            CalibrationBin(
                low=float(p.min()),
                high=float(p.max()),
                rows=len(p),
                prediction_mean=float(p.mean(dtype=np.float64)),
                label_mean=float(y.mean()),
            )
        )
    return table


def expected_calibration_error(table: list[CalibrationBin]) -> float:
    """Computes the distance between mean prediction and share of positive rows of a bin, averaged over rows.

    Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", 2015; here with
    bins of equally many rows. Chance alone makes it positive: about (bins / rows)^0.5 / 3 for perfect probabilities.
    """
    rows = sum(bin_.rows for bin_ in table)
    if not rows:
        return float("nan")
    return sum(bin_.rows * abs(bin_.prediction_mean - bin_.label_mean) for bin_ in table) / rows


def roc_curve(probability: Probabilities, positive: Positive, points: int = CURVE_POINTS) -> Curve:
    """Computes false positive rate (x) and recall (y), both ends included; empty for rows of one class."""
    if not has_both_classes(positive):
        return Curve(x=[], y=[])
    x, y, _ = sklearn.metrics.roc_curve(positive, probability)
    return _thinned(x, y, points)


def pr_curve(probability: Probabilities, positive: Positive, points: int = CURVE_POINTS) -> Curve:
    """Computes recall (x) and precision (y), both ends included; empty without positive rows."""
    if not positive.any():
        return Curve(x=[], y=[])
    precision, recall, _ = sklearn.metrics.precision_recall_curve(positive, probability)
    # In the order in which the threshold falls, without the conventional point at recall 0 that no threshold reaches.
    return _thinned(recall[-2::-1], precision[-2::-1], points)


def _thinned(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], points: int) -> Curve:
    """Keeps about `points` points at most, evenly spaced along the length of the curve."""
    way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    wanted = np.linspace(0, way[-1], points)
    index = np.unique(np.minimum(np.searchsorted(way, wanted), len(x) - 1))
    return Curve(x=x[index].tolist(), y=y[index].tolist())


def _mean(values: npt.NDArray[np.generic]) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else float("nan")


METRICS: dict[str, Callable[[Probabilities, Positive], float]] = {
    "auc": auc,
    "pr-auc": pr_auc,
    "accuracy": accuracy,
    "log-loss": log_loss,
    "brier": brier,
    "ece": lambda probability, positive: expected_calibration_error(calibration_table(probability, positive)),
    "prediction_mean": lambda probability, _: _mean(probability),
    "label_mean": lambda _, positive: _mean(positive),
}
