"""The biases-alone model: what a user is like and what an item is like, and nothing of how the two go together.

logit P(positive) = b + user bias + item bias. Psychometrics knows it as the Rasch model (G. Rasch, "Probabilistic
Models for Some Intelligence and Attainment Tests", 1960); as the baseline predictor of ratings it is Koren's ("Factor
in the Neighbors", 2010). A Gaussian prior keeps the biases of rare ids near 0. What a recommender has over it is what
it knows of taste.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dotbias.evaluation.measure.metrics import Positive
from dotbias.evaluation.rows import Codes

# 1 / variance of the prior of a bias, in logits. On ml-latest-small 0.5 and 1 are the best, 2 costs .003 of log loss.
PRECISION = 1.0
# Each is a Newton step for all items, then for all users; the loss stands still after a few.
_PASSES = 8


@dataclass(frozen=True)
class Biases:
    """`user` and `item` by code; of all ids that train did not know, the last entry."""

    intercept: float
    user: npt.NDArray[np.float64]
    item: npt.NDArray[np.float64]

    def probabilities(self, users: Codes, items: Codes) -> npt.NDArray[np.float32]:
        """P(positive), `[rows]`."""
        user = self.user[np.minimum(users, len(self.user) - 1)]
        item = self.item[np.minimum(items, len(self.item) - 1)]
        return _sigmoid(self.intercept + user + item).astype(np.float32)


def fit_biases(users: Codes, items: Codes, positive: Positive, known_users: int, known_items: int) -> Biases:
    """The biases with the greatest posterior density, by Newton's method for one side at a time.

    With the biases of the other side held, each bias is a problem of its own in one variable, so that all of a side are
    stepped at once by two sums over the rows.

    Args:
        users: `[rows]`; codes from `known_users` on share a bias.
        items: likewise.
        positive: `[rows]`, at least one.
        known_users: of train.
        known_items: of train.
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
