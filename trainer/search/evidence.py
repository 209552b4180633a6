"""Says how much better one model answers for the same rows than another, and what chance can do.

The score of a model is AUC - log loss, or NDCG@20 if it finds items. AUC is a mean over rows too, but for terms that
vanish with their number (E. DeLong et al., "Comparing the Areas under Two or More Correlated Receiver Operating
Characteristic Curves", 1988), so each row has a score of its own, and the standard error of a difference follows from
the differences row by row. Rows of a user depend on each other, so their differences are added up before they are
squared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.model.calibration import fit_logistic_map, fit_value_map

Scores = npt.NDArray[np.float64]
# Probabilities are kept as far away from 0 and 1.
_TINY = 1e-7


class Gain(NamedTuple):
    """Holds a difference in score, above 0 if the second model is better, and its standard error."""

    value: float
    error: float


def label_scores(
    logits: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_], values: npt.NDArray[np.float32] | None = None
) -> Scores:
    """Return scores whose mean is AUC - log loss, `[rows]`; the log loss is that after the best logistic map.

    With rows of one class, there is no AUC to add.

    Args:
        logits: `[rows]`, finite.
        positive: `[rows]`.
        values: the labels if they are values on a scale, `[rows]`, in [0, 1]; log loss is the cross-entropy with them.
    """
    target = (positive if values is None else values).astype(np.float64)
    mapped = fit_logistic_map(logits, positive) if values is None else fit_value_map(logits, values)
    probability = np.clip(mapped.apply(logits), _TINY, 1 - _TINY)
    scores = target * np.log(probability) + (1 - target) * np.log1p(-probability)
    above, below = logits[positive], logits[~positive]
    if not len(above) or not len(below):
        return scores
    # The share of the other class that a row is on the right side of; ties count half.
    right = np.zeros(len(logits))
    right[positive] = _share_below(above, below)
    right[~positive] = 1 - _share_below(below, above)
    auc = right[positive].mean()
    of_class = np.where(positive, len(above), len(below))
    return scores + auc + (right - auc) * len(logits) / of_class


def gain(pairs: Sequence[tuple[Scores, Scores, npt.NDArray[np.integer]]]) -> Gain:
    """Return the mean of second - first over all rows.

    Args:
        pairs: for each set of rows, scores of the first model, of the second, and the user of each row, `[rows]` each.
    """
    differences = [second - first for first, second, _ in pairs]
    rows = sum(map(len, differences))
    # Each set has models of its own, so the spread is that around the mean of the set.
    centred = np.concatenate([difference - difference.mean() for difference in differences])
    users = np.unique(np.concatenate([of_rows for _, _, of_rows in pairs]), return_inverse=True)[1]
    by_user = np.bincount(users, weights=centred)
    return Gain(float(np.concatenate(differences).mean()), float(np.sqrt(np.sum(by_user**2)) / rows))


def _share_below(values: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> Scores:
    """Return the share of `others` that are below each of `values`; equal ones count half."""
    ordered = np.sort(others)
    places = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return places / (2 * len(others))
