"""Finds the best items of a block of users, with matrix products and without a full sort.

Scores are float64 logits rounded to float32, and equal scores are ordered by the position of the item, as in an
export's signature `recommend`. A float32 product only selects the items whose exact scores are computed: all items that
could be in a list in spite of rounding errors. So lists do not depend on the BLAS library, its threads, or the size of
the blocks.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

# Bytes of scores that are computed at once; larger ones are not faster.
_BYTES_AT_A_TIME = 64 << 20
# The maximum of each group of this many items is found first, since a list has items of few groups.
_GROUP = 32
# Each selects items for its own users.
_CORES = os.cpu_count() or 1
# Pairs whose float64 products are in memory at once.
_PAIRS_AT_A_TIME = 1 << 16

Floats = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]


class Lists(NamedTuple):
    """Holds the lists of several users one after another, each from the best item on.

    `lengths` is `[users]`; `users` and `items` are positions and `scores` float32, all `[sum of lengths]`.
    """

    lengths: Positions
    users: Positions
    items: Positions
    scores: Floats


class Items:
    """Holds the items' vectors `[items, dim]`, float32, the bias last."""

    def __init__(self, vectors: Floats) -> None:
        self.vectors = np.ascontiguousarray(vectors, np.float32)
        self._longest = float(np.sqrt((self.vectors.astype(np.float32) ** 2).sum(axis=1).max(initial=0)))

    def __len__(self) -> int:
        return len(self.vectors)

    def best(self, users: Floats, bias: float, seen: tuple[Positions, Positions], k: int) -> Lists:
        """List the `k` items with the highest logits for each user, or all that are left if there are fewer.

        Args:
            users: vectors `[users, dim]`, the bias last.
            bias: b.
            seen: pairs to leave out, as positions of users and of items, `[pairs]` each.
            k: at least 1.
        """
        order = np.argsort(seen[0], kind="stable")
        seen_users, seen_items = seen[0][order], seen[1][order]
        rows = max(1, _BYTES_AT_A_TIME // (4 * max(1, len(self))))
        # One array for all blocks: the pages of a new one cost as much as filling it.
        scores = np.empty((min(rows, len(users)), len(self)), np.float32)
        parts = []
        with ThreadPoolExecutor(_CORES) as pool:
            for start in range(0, len(users), rows):
                part = users[start : start + rows]
                begin, end = np.searchsorted(seen_users, [start, start + len(part)])
                pairs = seen_users[begin:end] - start, seen_items[begin:end]
                found = self._best(part, bias, *pairs, k, scores[: len(part)], pool)
                parts.append(found._replace(users=found.users + start))
        if not parts:
            nothing = np.zeros(0, np.int64)
            return Lists(nothing, nothing, nothing, np.zeros(0, np.float32))
        return Lists(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def _best(
        self,
        users: Floats,
        bias: float,
        seen_users: Positions,
        seen_items: Positions,
        k: int,
        scores: Floats,
        pool: ThreadPoolExecutor,
    ) -> Lists:
        """List the items of a block; `scores`, `[users, items]`, is overwritten."""
        query = np.array(users, np.float32)
        query[:, -1] = 1
        offset = users[:, -1].astype(np.float64) + bias
        np.matmul(query, self.vectors.T, out=scores)
        scores[seen_users, seen_items] = -np.inf
        error = self._error(query, offset)

        def ordered(start: int, end: int) -> tuple[Positions, Positions, Floats]:
            rows, at = _above(scores[start:end], k, error[start:end])
            rows = rows + start
            exact = self._exact(query, offset, rows, at)
            order = np.lexsort((at, -exact, rows))
            return rows[order], at[order], exact[order]

        # The product has threads of its own; what follows it works on each user alone.
        bounds = np.linspace(0, len(users), _CORES + 1).astype(int)
        found = zip(*pool.map(ordered, bounds[:-1], bounds[1:]), strict=True)
        rows, at, exact = (np.concatenate(column) for column in found)
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        kept = rank < k
        lengths = np.bincount(rows[kept], minlength=len(users))
        return Lists(lengths, rows[kept], at[kept], exact[kept])

    def _error(self, query: Floats, offset: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Bound twice the error of float32 products and of rounding to float32, `[users]`."""
        largest = np.linalg.norm(query.astype(np.float64), axis=1) * self._longest
        unit = 2.0**-24
        bound: npt.NDArray[np.float64] = 2 * unit * ((query.shape[1] + 4) * largest + np.abs(offset))
        return bound

    def _exact(self, query: Floats, offset: npt.NDArray[np.float64], rows: Positions, at: Positions) -> Floats:
        """Return the scores of pairs; NumPy sums in the same order on all machines, as BLAS does not."""
        scores = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _PAIRS_AT_A_TIME):
            pairs = slice(start, start + _PAIRS_AT_A_TIME)
            products = query[rows[pairs]].astype(np.float64) * self.vectors[at[pairs]]
            scores[pairs] = products.sum(axis=1) + offset[rows[pairs]]
        return scores


def _above(scores: Floats, k: int, error: npt.NDArray[np.float64]) -> tuple[Positions, Positions]:
    """Return the rows and columns of scores that may be among the `k` highest of their row.

    The k-th highest of the groups' maxima is at most the k-th highest score, so lower scores are in no list. One pass
    over all scores finds the maxima, and only groups with a high maximum are read again.
    """
    users, items = scores.shape
    width = min(_GROUP, items // (4 * k))
    if width < 2:
        if k < items:
            least = np.partition(scores, items - k, axis=1)[:, items - k] - error
            return _pairs(np.nonzero((scores >= least[:, np.newaxis]) & (scores > -np.inf)))
        return _pairs(np.nonzero(scores > -np.inf))
    groups = items // width
    # A group is every `groups`-th item, since the maximum over adjacent rows is several times as fast.
    step, size = scores.strides
    whole = np.lib.stride_tricks.as_strided(scores, (users, width, groups), (step, groups * size, size))
    maxima = whole.max(axis=1)
    lowest = np.partition(maxima, groups - k, axis=1)[:, groups - k] - error
    # The few items after the last whole row of groups are compared one by one.
    rest = scores[:, groups * width :]
    tail_rows, tail = np.nonzero((rest >= lowest[:, np.newaxis]) & (rest > -np.inf))
    rows, group = np.nonzero(maxima >= lowest[:, np.newaxis])
    values = whole[rows, :, group]
    hit, column = np.nonzero((values >= lowest[rows, np.newaxis]) & (values > -np.inf))
    return (
        np.concatenate([rows[hit], tail_rows]),
        np.concatenate([column * groups + group[hit], tail + groups * width]),
    )


def _pairs(found: Any) -> tuple[Positions, Positions]:
    rows, columns = found
    return rows, columns
