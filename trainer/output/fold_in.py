"""Prepares `recommend_for_items`: what a user's vector is likely to be, given some of their items and no user.

Y. Hu, Y. Koren and C. Volinsky ("Collaborative Filtering for Implicit Feedback Datasets", 2008) fold users in by ridge
regression on the vectors of their items, where the items that they lack count too. Here, the regression is one Newton
step, from the mean user, for the user's vector x that maximizes

    sum over the user's items i of log softmax_i(<x, v> + item bias)  -  (x - mean)' covariance^-1 (x - mean) / 2

with mean and covariance of the users' vectors. The curvature of the softmax, m times the covariance of the items that
users go for, does not depend on the user's items, so one change of basis solves the equations for all users.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

# Users from whose scores it is computed how likely each item is.
_USERS = 128
_ROWS_AT_A_TIME = 1 << 16

Floats = npt.NDArray[np.float64]


class FoldIn(NamedTuple):
    """Maps m items, whose vectors have the sum s, to the user mean + basis (basis' (s - m center) / (1 + m curvature)).

    Attributes:
        mean: of the users' vectors, `[dim]`, the bias last.
        center: mean vector of the items that users go for, `[dim - 1]`.
        basis: `[dim - 1, dim - 1]`.
        curvature: `[dim - 1]`, not negative.
    """

    mean: Floats
    center: Floats
    basis: Floats
    curvature: Floats

    @classmethod
    def of(cls, users: Sequence[tuple[Any, int]], items: Callable[[int, int], npt.NDArray[np.float32]]) -> FoldIn:
        """Compute it from the tables.

        Args:
            users: tables of the user side, and how many rows of each are ids and not OOV buckets; 0: take all rows.
            items: (start, end) -> vectors of these items, `[items, dim]`, the bias last; fewer at the end, then none.
        """
        mean, covariance = moments(users)
        center, of_items = _chosen_items(_some_users(users), items)
        # Roots, since a covariance has no inverse where users are fewer than dimensions.
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
        curvature, turn = np.linalg.eigh(root @ of_items @ root)
        return cls(mean, center, root @ turn, np.maximum(curvature, 0))


def moments(tables: Sequence[tuple[Any, int]]) -> tuple[Floats, Floats]:
    """Return the mean `[dim]` and covariance `[dim - 1, dim - 1]` of sums of vectors, one of each table.

    Vectors of several tables are taken as independent. `tables` as in `FoldIn.of`.
    """
    means, covariances = [], []
    for table, known in tables:
        rows = known or int(table.shape[0])
        dim = int(table.shape[1])
        first, second = np.zeros(dim), np.zeros((dim - 1, dim - 1))
        for start in range(0, rows, _ROWS_AT_A_TIME):
            part = table[start : min(start + _ROWS_AT_A_TIME, rows)].numpy().astype(np.float64)
            first, second = first + part.sum(axis=0), second + part[:, :-1].T @ part[:, :-1]
        mean = first / rows
        means.append(mean)
        covariances.append(second / rows - np.outer(mean[:-1], mean[:-1]))
    return np.sum(means, axis=0), np.sum(covariances, axis=0)


def _some_users(tables: Sequence[tuple[Any, int]]) -> npt.NDArray[np.float32]:
    """Return vectors of users, `[_USERS, dim]`, with 1 in the place of the bias."""
    rng = np.random.default_rng(0)
    drawn = [(table, rng.integers(0, known or int(table.shape[0]), _USERS)) for table, known in tables]
    vectors: npt.NDArray[np.float32] = np.sum([tf.gather(table, rows).numpy() for table, rows in drawn], axis=0)
    vectors[:, -1] = 1
    return vectors


def _chosen_items(
    users: npt.NDArray[np.float32], items: Callable[[int, int], npt.NDArray[np.float32]]
) -> tuple[Floats, Floats]:
    """Return mean and covariance of the vectors of items, each with the mean over users of its softmax as weight."""
    highest, total = np.full(len(users), -np.inf), np.zeros(len(users))
    for part in _blocks(items):
        scores = (users @ part.T).astype(np.float64)
        higher = np.maximum(highest, scores.max(axis=1))
        total = total * np.exp(highest - higher) + np.exp(scores - higher[:, np.newaxis]).sum(axis=1)
        highest = higher
    dim = users.shape[1]
    first, second = np.zeros(dim - 1), np.zeros((dim - 1, dim - 1))
    for part in _blocks(items):
        scores = (users @ part.T).astype(np.float64)
        weight = (np.exp(scores - highest[:, np.newaxis]) / total[:, np.newaxis]).mean(axis=0)
        vectors = part[:, :-1].astype(np.float64)
        first, second = first + weight @ vectors, second + (vectors.T * weight) @ vectors
    return first, second - np.outer(first, first)


def _blocks(items: Callable[[int, int], npt.NDArray[np.float32]]) -> Any:
    start = 0
    while len(part := items(start, start + _ROWS_AT_A_TIME)):
        yield part
        start += len(part)
