"""Fits the logistic maps from logit to P(positive) and to the expected label, of two parameters each.

They are fitted on rows that the model was not trained on. Labels may be soft, so the sigmoid of a logit is an expected
label, not a probability. Many epochs make a model too sure, L2 and averaging make it less sure. The maps correct both
(J. Platt, "Probabilistic Outputs for Support Vector Machines", 1999). They keep the order of the rows, and so AUC.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.model.logistic import fit_logistic, sigmoid

Logits = npt.NDArray[np.float32]
Positive = npt.NDArray[np.bool_]

_log = logging.getLogger("trainer.train")


class LogisticMap(NamedTuple):
    """Computes P(positive) or the expected label as sigmoid(scale * logit + offset)."""

    scale: float = 1.0
    offset: float = 0.0

    def apply(self, logits: Logits) -> npt.NDArray[np.float64]:
        """Map logits `[rows]` to values `[rows]` in [0, 1]."""
        return sigmoid(self.scale * logits.astype(np.float64) + self.offset)


IDENTITY = LogisticMap()


class Calibration(NamedTuple):
    """Holds the maps of a model: to P(positive), and to the expected label where that is a value on a scale."""

    probability: LogisticMap
    value: LogisticMap


def fit_logistic_map(logits: Logits, positive: Positive) -> LogisticMap:
    """Fit the map with the least log loss against `platt_targets`.

    Returns the identity, with a warning, if there are no rows, only one class, equal logits, or lower logits for
    positive rows than for negative ones, since that map would reverse the order.

    Args:
        logits: `[rows]`, finite.
        positive: `[rows]`.
    """
    if positive.all() or not positive.any():
        _log.warning("The eval split has no rows of both classes: no logistic map is fitted.")
        return IDENTITY
    return _fit(logits, platt_targets(positive))


def platt_targets(positive: Positive) -> npt.NDArray[np.float64]:
    """Return (n + 1) / (n + 2) for n positive rows and 1 / (n + 2) for n negative ones, `[rows]`.

    Used instead of 1 and 0, they keep a fit finite where logits separate the classes.
    """
    positives = int(positive.sum())
    return np.where(positive, (positives + 1) / (positives + 2), 1 / (len(positive) - positives + 2))


def fit_value_map(logits: Logits, labels: npt.NDArray[np.float32]) -> LogisticMap:
    """Fit the map with the least cross-entropy against the labels themselves, `[rows]`, in [0, 1].

    Returns the identity, with a warning, if there are no rows, equal labels, or logits as for `fit_logistic_map`.
    """
    if not len(labels) or labels.min() == labels.max():
        _log.warning("The eval split has no two labels that differ: no map to values is fitted.")
        return IDENTITY
    return _fit(logits, labels.astype(np.float64))


def _fit(logits: Logits, target: npt.NDArray[np.float64]) -> LogisticMap:
    """Fit a map to targets `[rows]` in [0, 1], whose mean is neither 0 nor 1."""
    center, spread = float(logits.mean(dtype=np.float64)), float(logits.std(dtype=np.float64))
    if not spread > 0:
        _log.warning("The logits of the eval split are all the same: no logistic map is fitted.")
        return IDENTITY
    # Centred and of unit spread, the two parameters hardly depend on each other.
    x = (logits.astype(np.float64) - center) / spread
    mean = float(target.mean())
    start = np.array([0.0, np.log(mean / (1 - mean))])
    slope, offset = map(float, fit_logistic(np.stack([x, np.ones_like(x)], axis=1), target, start))
    if slope <= 0:
        _log.warning("Rows of the eval split with higher labels have lower logits: no logistic map is fitted.")
        return IDENTITY
    return LogisticMap(slope / spread, offset - slope * center / spread)


def log_loss(probability: npt.NDArray[np.float64], positive: Positive) -> float:
    """Return the mean of -log P(class of the row) in nats; probabilities are kept 1e-7 away from 0 and 1."""
    p = np.clip(probability, 1e-7, 1 - 1e-7)
    return float(-np.where(positive, np.log(p), np.log1p(-p)).mean())
