"""Weighs the parts of a trained model's logit by what rows that it was not trained on say of them.

L2 makes all parts of a logit smaller, but not alike: it takes more from vectors than from biases, more from weak
directions of the vectors than from strong ones, and from rare ids another share than from frequent ones. A logistic
regression on eval rows gives each of these parts a weight of its own, as the relaxed lasso does for coefficients that a
penalty has made too small (N. Meinshausen, "Relaxed Lasso", 2007). The weights go into the tables, so the model stays a
dot product plus biases.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipeline.manifest import Side
from trainer.data.dataset import Dataset
from trainer.data.reader import read_batches
from trainer.model.blocks import row_blocks
from trainer.model.calibration import platt_targets
from trainer.model.dot_bias import DotBias
from trainer.model.logistic import fit_logistic
from trainer.model.tables import Counts, index_counts
from trainer.output.predictions import is_positive, is_value

Array = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

# Seven weights need no more; shards are shuffled, so that the first rows are a sample.
_LARGEST_SAMPLE = 1 << 16
# Standard deviation of a weight around that of the whole logit, before any row is seen.
_PRIOR_DEVIATION = 0.05
# Weights stay positive, so that no part turns its sign.
_SMALLEST_WEIGHT = 0.1
# With the farthest count, a factor between 0.2 and 4.5.
_LARGEST_BY_COUNT = 0.5
# Counts farther away than this from the usual one, in standard deviations of their logarithm, count as that far.
_FARTHEST = 3.0
# A direction with less than this share of the largest singular value is noise of the arithmetic.
_SMALLEST_SINGULAR_VALUE = 0.02


class Parts(NamedTuple):
    """Holds how much more than the whole logit a part weighs: 0.1 is a tenth more.

    `by_count` is the change of a part's logarithm for each standard deviation of the logarithm of an id's count.
    """

    user_bias: float = 0.0
    item_bias: float = 0.0
    # What every direction of the vectors gets alike, whatever its singular value.
    directions: float = 0.0
    user_vectors_by_count: float = 0.0
    item_vectors_by_count: float = 0.0
    user_bias_by_count: float = 0.0
    item_bias_by_count: float = 0.0


class Rescaling:
    """Fits weights to eval rows with one model, and puts them into its tables and those of its refit.

    Args:
        data: has the rows.
        split: with rows that `fit`'s model was not trained on.
    """

    def __init__(self, data: Dataset, split: str) -> None:
        self.parts = Parts()
        self._sides = data.sides
        self._levels = {
            name: _levels(counts, data.manifest.features[name].vocabulary_size)
            for name, counts in index_counts(data).items()
        }
        self._ids, labels = _first_rows(data, split)
        label = data.manifest.label
        # Labels that are values are what the export answers, and the map to probabilities is fitted to classes.
        self._target = labels.astype(np.float64) if is_value(label) else platt_targets(is_positive(labels, label))

    def fit(self, model: DotBias) -> None:
        """Find the weights; they stay 0 if the rows have one label only, or the logit says nothing of it."""
        if not len(self._target) or self._target.min() == self._target.max():
            return
        user, item = (self._summed(model, side) for side in ("user", "item"))
        total = np.sum(user.vectors * item.vectors, axis=1) + user.bias + item.bias
        one = np.ones_like(total)
        start = np.array([0.0, np.log(self._target.mean() / (1 - self._target.mean()))])
        slope, offset = fit_logistic(np.stack([total, one], axis=1, dtype=np.float64), self._target, start)
        if not slope > 0:
            return
        parts = {
            "user_bias": user.bias,
            "item_bias": item.bias,
            "directions": np.sum(user.vectors @ _equal_directions(user.vectors, item.vectors) * item.vectors, axis=1),
            "user_vectors_by_count": np.sum(user.vectors_by_level * item.vectors, axis=1),
            "item_vectors_by_count": np.sum(user.vectors * item.vectors_by_level, axis=1),
            "user_bias_by_count": user.bias_by_level,
            "item_bias_by_count": item.bias_by_level,
        }
        x = np.stack([total, *parts.values(), one], axis=1, dtype=np.float64)
        x[:, :-1] *= slope
        l2 = np.full(x.shape[1], 0.5 / (_PRIOR_DEVIATION**2 * len(x)))
        l2[[0, -1]] = 0
        whole, *weights, _ = fit_logistic(x, self._target, np.array([1.0, *np.zeros(len(parts)), offset]), l2=l2)
        if whole > 0:
            self.parts = Parts(**{name: float(weight / whole) for name, weight in zip(parts, weights, strict=True)})

    def apply(self, model: DotBias) -> None:
        """Put the weights into the tables; to be called once for a model, in the cross-replica context."""
        parts = self.parts
        if parts == Parts():
            return
        user, item = (self._summed(model, side).vectors for side in ("user", "item"))
        mixing = (np.eye(user.shape[1]) + parts.directions * _equal_directions(user, item)).T.astype(np.float32)
        for name, table in model.tables.items():
            of_item = self._sides[name] == "item"
            bias = max(1 + (parts.item_bias if of_item else parts.user_bias), _SMALLEST_WEIGHT)
            vectors_by_count = parts.item_vectors_by_count if of_item else parts.user_vectors_by_count
            bias_by_count = (parts.item_bias_by_count if of_item else parts.user_bias_by_count) / bias
            for copy in model.distribute_strategy.experimental_local_results(table):
                for block in row_blocks(copy):
                    rows = block.read().numpy()
                    level = self._levels[name][block.first : block.end, np.newaxis]
                    rows[:, :-1] *= _factor(vectors_by_count, level)
                    if of_item:
                        rows[:, :-1] = rows[:, :-1] @ mixing
                    rows[:, -1:] *= bias * _factor(bias_by_count, level)
                    block.write(rows)

    def _summed(self, model: DotBias, side: Side) -> _Summed:
        """Sum the embeddings of the features of a side, once as they are and once times the level of the id."""
        names = [name for name, of in self._sides.items() if of == side]
        looked_up = [tf.gather(model.tables[name], self._ids[name]).numpy() for name in names]
        levels = [self._levels[name][self._ids[name], np.newaxis] for name in names]
        plain = sum(looked_up)
        by_level = sum(rows * level for rows, level in zip(looked_up, levels, strict=True))
        return _Summed(plain[:, :-1], plain[:, -1], by_level[:, :-1], by_level[:, -1])


class _Summed(NamedTuple):
    """Holds vectors `[rows, units]` and biases `[rows]` of a side."""

    vectors: Array
    bias: Array
    vectors_by_level: Array
    bias_by_level: Array


def _factor(by_count: float, level: Array) -> Array:
    return np.exp(np.clip(by_count, -_LARGEST_BY_COUNT, _LARGEST_BY_COUNT) * level)


def _levels(counts: Counts, vocabulary_size: int | None) -> Array:
    """Return the logarithm of each count, `[table rows]`, with mean 0 and standard deviation 1 over looked-up rows.

    OOV buckets, the rows from `vocabulary_size` on, count once, as the ids that look them up hardly occur.
    """
    logarithm = np.log(np.maximum(counts, 1))
    if vocabulary_size is not None:
        logarithm[vocabulary_size:] = 0
    weights = counts / max(counts.sum(dtype=np.float64), 1.0)
    centred = logarithm - np.sum(weights * logarithm)
    deviation = np.sqrt(np.sum(weights * centred**2))
    if not deviation > 1e-6:
        return np.zeros_like(counts)
    return np.clip(centred / deviation, -_FARTHEST, _FARTHEST).astype(np.float32)


def _first_rows(data: Dataset, split: str) -> tuple[Mapping[str, npt.NDArray[np.int32]], Array]:
    """Return ids `[rows]` by feature, and labels `[rows]`, of the first rows of a split."""
    for features, label in read_batches(data, split, _LARGEST_SAMPLE):
        return {name: ids.numpy() for name, ids in features.items()}, label.numpy()
    return {name: np.zeros(0, np.int32) for name in data.sides}, np.zeros(0, np.float32)


def _equal_directions(user: Array, item: Array) -> Matrix:
    """Return a matrix E, `[units, units]`: in u' E v, each direction of u' v has the same singular value.

    That is the mean of the singular values, weighted by themselves. Taking the same amount off all of them is what L2
    on both vectors does (N. Srebro et al., "Maximum-Margin Matrix Factorization", 2004), so E can give it back.

    Args:
        user: the vectors u of some rows, `[rows, units]`.
        item: their vectors v.
    """
    (root_u, inverse_u), (root_v, inverse_v) = _roots(user), _roots(item)
    left, singular, right = np.linalg.svd(root_u @ root_v)
    kept = singular > _SMALLEST_SINGULAR_VALUE * singular[0]
    mean = np.sum(singular**2) / max(np.sum(singular), 1e-30)
    return mean * inverse_u @ left[:, kept] @ right[kept] @ inverse_v


def _roots(vectors: Array) -> tuple[Matrix, Matrix]:
    """Return the square root of the mean of v v', and its pseudo-inverse, `[units, units]` each."""
    squares, basis = np.linalg.eigh(vectors.T.astype(np.float64) @ vectors / max(len(vectors), 1))
    root = np.sqrt(np.maximum(squares, 0))
    inverse = np.divide(1, root, out=np.zeros_like(root), where=root > 1e-6 * root.max(initial=0))
    return (basis * root) @ basis.T, (basis * inverse) @ basis.T
