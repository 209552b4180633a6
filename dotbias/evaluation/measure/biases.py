"""Fits the biases-alone model, which knows users and items but not which user likes which item.

logit P(positive) = b + user bias + item bias. In psychometrics this is the Rasch model (G. Rasch, "Probabilistic Models
for Some Intelligence and Attainment Tests", 1960); for ratings it is the baseline predictor (Y. Koren, "Factor in the
Neighbors", 2010). A Gaussian prior keeps the biases of rare ids near 0. The gain of a recommender over it comes from
its vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dotbias.evaluation.measure.metrics import Positive
from dotbias.evaluation.rows import Codes

# 1 / variance of the prior, in logits. On ml-latest-small, 0.5 and 1 are best; 2 costs .003 of log loss.
PRECISION = 1.0
# Each pass is a Newton step for all items, then for all users; the loss no longer changes after a few.
_PASSES = 8


@dataclass(frozen=True)
class Biases:
    """Holds the biases by code; the last entry of `user` and of `item` is for all ids that train does not have."""

    intercept: float
    user: npt.NDArray[np.float64]
    item: npt.NDArray[np.float64]

    def probabilities(self, users: Codes, items: Codes) -> npt.NDArray[np.float32]:
        """Computes P(positive), `[rows]`."""
        user = self.user[np.minimum(users, len(self.user) - 1)]
        item = self.item[np.minimum(items, len(self.item) - 1)]
        return _sigmoid(self.intercept + user + item).astype(np.float32)


def fit_biases(users: Codes, items: Codes, positive: Positive, known_users: int, known_items: int) -> Biases:
    """Fits the biases with the greatest posterior density, by Newton's method for one side at a time.

    While the other side is fixed, each bias is a problem of one variable, so two sums over the rows step all biases of
    a side at once.

    Args:
        users: `[rows]`; codes from `known_users` on share a bias.
        items: `[rows]`; codes from `known_items` on share a bias.
        positive: `[rows]`, at least one row.
        known_users: number of users in train.
        known_items: number of items in train.
    """
    users, items = np.minimum(users, known_users), np.minimum(items, known_items)
    share = (positive.sum() + 0.5) / (len(positive) + 1)
    intercept = float(np.log(share / (1 - share)))
    bias = {"user": np.zeros(known_users + 1), "item": np.zeros(known_items + 1)}
    sides = (("item", items), ("user", users))
    logit = np.full(len(positive), intercept)
    for _ in range(_PASSES):
        for side, codes in sides:
            p = _sigmoid(logit)
            slope = np.bincount(codes, weights=p - positive, minlength=len(bias[side])) + PRECISION * bias[side]
            curvature = np.bincount(codes, weights=p * (1 - p), minlength=len(bias[side])) + PRECISION
            step = slope / curvature
            bias[side] -= step
            logit -= step[codes]
    return Biases(intercept, bias["user"], bias["item"])


def _sigmoid(logit: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 0.5 * (1 + np.tanh(0.5 * logit))
