"""Measures lists: all items are ranked for a sample of eval users, without the items that they have in train.

No negatives are sampled (W. Krichene and S. Rendle, "On Sampled Metrics for Item Recommendation", 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainer.data.dataset import Dataset, side_features
from trainer.data.reader import read_batches
from trainer.data.sides import Indices, side_rows

K = 20
NDCG, RECALL = f"ndcg@{K}", f"recall@{K}"
RANKING_METRICS = (NDCG, RECALL)
# The standard error of NDCG is then about half a point.
_USERS = 2000
_ROWS_AT_A_TIME = 1 << 16
_SCORES_AT_A_TIME = 1 << 23

Table = Callable[[str], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class RankingTask:
    """Holds the users to rank items for, and the seen and relevant items of each.

    Pairs are keys, user * number of items + item, sorted, where users are numbered from 0 and items are rows of the
    table of the first item feature.

    Attributes:
        users: table rows by feature of the user side, `[users]`.
        items: table rows by feature of the item side, `[items]`: those of the vocabulary, or all bins.
        seen: pairs of train rows.
        relevant: pairs of positive eval rows that are not seen, at least one for each user.
    """

    users: Mapping[str, Indices]
    items: Mapping[str, Indices]
    seen: Indices
    relevant: Indices

    @classmethod
    def draw(cls, data: Dataset, seed: int) -> RankingTask | None:
        """Draw at most 2,000 users who can be ranked for; None if there is none."""
        user, item = (side_features(data, side)[0] for side in ("user", "item"))
        num_items = _known(data, item)
        rows = read_rows(data, "eval", None)
        positive = rows["label"] >= np.float32(data.manifest.label.positive_at)
        positive &= (rows[user] < _known(data, user)) & (rows[item] < num_items)
        rows = {name: values[positive] for name, values in rows.items()}
        users, last = np.unique(rows[user][::-1], return_index=True)
        if len(users) > _USERS:
            chosen = np.sort(np.random.default_rng(seed).choice(len(users), _USERS, replace=False))
            users, last = users[chosen], last[chosen]
        train = read_rows(data, "train", (user, users))
        seen, relevant = (_keys(users, side[user], side[item], num_items) for side in (train, rows))
        relevant = np.setdiff1d(relevant, seen, assume_unique=True)
        if not len(relevant):
            return None
        # Users without a relevant item left are not ranked for.
        kept = np.unique(relevant // num_items)
        renumbered = np.full(len(users), -1)
        renumbered[kept] = np.arange(len(kept))
        at = len(rows[user]) - 1 - last[kept]
        return cls(
            users={name: rows[name][at] for name in side_features(data, "user")},
            items={name: of_items[:num_items] for name, of_items in side_rows(data, "item").items()},
            seen=_renumbered(seen, renumbered, num_items),
            relevant=_renumbered(relevant, renumbered, num_items),
        )

    def measure(self, table: Table) -> dict[str, float]:
        """Return NDCG@20 and Recall@20, means over users; `table` gives the table of a feature as the export has it."""
        return {name: float(values.mean()) for name, values in self.by_user(table).items()}

    def by_user(self, table: Table) -> dict[str, npt.NDArray[np.float64]]:
        """Return the metrics of each user, `[users]`."""
        users, items = (
            np.sum([table(name)[rows] for name, rows in sorted(side.items())], axis=0)
            for side in (self.users, self.items)
        )
        # A user's bias shifts all scores equally; a 1 in its place adds the item's bias to the product.
        users[:, -1] = 1
        num_items = len(items)
        block = max(_SCORES_AT_A_TIME // num_items, 1)
        ranks = []
        for first in range(0, len(users), block):
            scores = users[first : first + block] @ items.T
            scores[_pairs(self.seen, first, block, num_items)] = -np.inf
            of, wanted = _pairs(self.relevant, first, block, num_items)
            # Among equal scores the relevant item comes last, so that a constant score has the worst metrics.
            ranks += [
                np.count_nonzero(scores[u] >= scores[u, i]) for u, i in zip(of.tolist(), wanted.tolist(), strict=True)
            ]
        return _metrics(np.array(ranks), self.relevant // num_items)


class MeasureRanking(tf.keras.callbacks.Callback):
    """Adds the metrics of a task to the eval metrics of each epoch; place it before whatever exchanges the weights.

    Args:
        task: the users and their items.
    """

    def __init__(self, task: RankingTask) -> None:
        super().__init__()
        self._task = task
        self._measured: dict[str, float] = {}

    def on_test_end(self, logs: Any = None) -> None:
        """Measure while averages are in the place of the weights."""
        self._measured = measure_ranking(self.model, self._task)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs.update({f"val_{name}": value for name, value in self._measured.items()})


def measure_ranking(model: Any, task: RankingTask) -> dict[str, float]:
    """Measure a `DotBias` that has not been folded yet."""
    return task.measure(lambda name: model.folded(name).numpy())


def _known(data: Dataset, feature: str) -> int:
    """Return the rows of a table that stand for known tokens: those of the vocabulary, or all bins."""
    of = data.manifest.features[feature]
    return data.num_bins[feature] if of.vocabulary_size is None else of.vocabulary_size


def read_rows(data: Dataset, split: str, of: tuple[str, Indices] | None) -> dict[str, npt.NDArray[Any]]:
    """Read features and label of a split; with `of`, only the rows whose feature has one of these indices, sorted."""
    parts: list[dict[str, npt.NDArray[Any]]] = []
    wanted = None
    if of is not None:
        wanted = np.zeros(data.table_rows[of[0]], np.bool_)
        wanted[of[1]] = True
    for features, label in read_batches(data, split, _ROWS_AT_A_TIME):
        rows = {name: ids.numpy().astype(np.int64) for name, ids in features.items()} | {"label": label.numpy()}
        if wanted is not None and of is not None:
            mine = wanted[rows[of[0]]]
            rows = {name: values[mine] for name, values in rows.items()}
        parts.append(rows)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _keys(users: Indices, of: Indices, items: Indices, num_items: int) -> Indices:
    """Return the distinct pairs of `of` and `items`, `[rows]` each, as keys; other users and OOV items are left out."""
    position = np.minimum(np.searchsorted(users, of), len(users) - 1)
    mine = (items < num_items) & (users[position] == of) if len(users) else np.zeros(len(of), np.bool_)
    return np.unique(position[mine] * num_items + items[mine])


def _renumbered(keys: Indices, numbers: Indices, num_items: int) -> Indices:
    users, items = np.divmod(keys, num_items)
    return (numbers[users] * num_items + items)[numbers[users] >= 0]


def _pairs(keys: Indices, first: int, block: int, num_items: int) -> tuple[Indices, Indices]:
    """Return users, counted from `first`, and items of the pairs of a block of users."""
    start, end = np.searchsorted(keys, [first * num_items, (first + block) * num_items])
    users, items = np.divmod(keys[start:end], num_items)
    return users - first, items


def _metrics(ranks: Indices, users: Indices) -> dict[str, npt.NDArray[np.float64]]:
    """Compute the metrics of each user from the rank of each relevant item, from 1, and its user, both `[relevant]`."""
    number = np.bincount(users)
    hit = ranks <= K
    gain = np.bincount(users, weights=hit / np.log2(ranks + 1))
    ideal = np.cumsum(1 / np.log2(np.arange(K) + 2))[np.minimum(number, K) - 1]
    recall = np.bincount(users, weights=hit) / number
    return {NDCG: gain / ideal, RECALL: recall}
