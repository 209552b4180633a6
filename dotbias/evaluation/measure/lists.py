"""Ranks items, and measures how much of what a user went for is at the top.

Recall@k, NDCG@k, the hit rate (success) and the reciprocal rank are defined as in trec_eval. Among equal
scores the relevant item comes last, so that a constant score has the worst metrics.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dotbias.evaluation.measure.bootstrap import mean_estimate, mean_estimates
from dotbias.evaluation.measure.ranking_task import Pairs
from dotbias.evaluation.results import Ranker, RankerName, RankingAtK, RankingGain
from pipeline.manifest import Progress

KS = (10, 20, 50, 100)
# Popular are this share of all items, those with the most train rows.
POPULAR = 0.1
# Scores that are computed at a time: 32 MiB, and about as much to compare them.
SCORES_AT_A_TIME = 1 << 23

Vectors = npt.NDArray[np.float32]
# A number for each user, `[users]`.
ByUser = npt.NDArray[np.float64]


class Shown(NamedTuple):
    """Holds a ranking: `ranks` of the relevant pairs, from 1; `top` items, `[users, depth]`, -1 where a list ends."""

    ranks: npt.NDArray[np.int64]
    top: npt.NDArray[np.int64]


def rank(users: Vectors, items: Vectors, seen: Pairs, relevant: Pairs, depth: int, progress: Progress) -> Shown:
    """Ranks all items for each user by <user, item>, except those seen.

    Args:
        users: `[users, dim]`.
        items: `[items, dim]`.
        seen: pairs that are left out of the ranking.
        relevant: pairs to find; none of them is seen.
        depth: number of items in `top`, at most the number of items.
        progress: called with the stage `rank`, in relevant pairs.
    """
    block = max(SCORES_AT_A_TIME // len(items), 1)
    ranks, tops = [np.zeros(0, np.int64)], [np.zeros((0, depth), np.int64)]
    for start in range(0, len(users), block):
        scores = users[start : start + block] @ items.T
        scores[seen.of(start, start + block)] = -np.inf
        wanted = relevant.of(start, start + block)
        for first in range(0, len(wanted.users), block):
            some = Pairs(*(values[first : first + block] for values in wanted))
            ranks.append(np.count_nonzero(scores[some.users] >= scores[some][:, np.newaxis], axis=1))
        best = np.argpartition(scores, -depth, axis=1)[:, -depth:]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        best[np.isneginf(np.take_along_axis(scores, best, axis=1))] = -1
        tops.append(best)
        progress("rank", sum(map(len, ranks)), len(relevant.users), {})
    return Shown(np.concatenate(ranks), np.concatenate(tops))


def metrics_by_user(shown: Shown, relevant: Pairs, num_users: int, k: int) -> dict[str, ByUser]:
    """Computes recall, NDCG, hit rate and reciprocal rank in the first k items, by name, for each user.

    Args:
        shown: result of `rank`.
        relevant: at least one pair of each user.
        num_users: number of users.
        k: length of the lists.
    """
    number = np.bincount(relevant.users, minlength=num_users)
    hit = shown.ranks <= k
    hits = np.bincount(relevant.users, weights=hit, minlength=num_users)
    gain = np.bincount(relevant.users, weights=hit / np.log2(shown.ranks + 1), minlength=num_users)
    best = np.cumsum(1 / np.log2(np.arange(k) + 2))[np.minimum(number, k) - 1]
    first = first_ranks(shown, relevant, num_users)
    return {
        "recall": hits / number,
        "ndcg": np.asarray(gain / best),
        "hit_rate": (hits > 0).astype(np.float64),
        "mrr": np.where(first <= k, 1 / first, 0.0),
    }


def first_ranks(shown: Shown, relevant: Pairs, num_users: int) -> npt.NDArray[np.int64]:
    """Finds the best rank of a relevant item of each user, `[users]`."""
    first = np.full(num_users, np.iinfo(np.int64).max)
    np.minimum.at(first, relevant.users, shown.ranks)
    return first


def measure_ranker(
    name: RankerName,
    shown: Shown,
    relevant: Pairs,
    num_users: int,
    item_rows: npt.NDArray[np.int64],
    model: Shown | None = None,
) -> Ranker:
    """Computes the metrics of a ranking, as means over users.

    Args:
        name: name of the ranker.
        shown: result of `rank`.
        relevant: at least one pair of each user.
        num_users: number of users.
        item_rows: train rows of each item, `[items]`.
        model: the ranking of the model for the same users, to compare with; None if this is the model.
    """
    popularity, is_popular = popularity_of(item_rows), _is_popular(item_rows)
    # In bits: how surprising it is that a train row drawn at random has the item.
    surprise = -np.log2(np.maximum(item_rows, 1) / max(item_rows.sum(), 1))
    at, gains = [], []
    for k in sorted({min(k, len(item_rows)) for k in KS}):
        values = metrics_by_user(shown, relevant, num_users, k)
        items = shown.top[:, :k]
        items = items[items >= 0]
        at.append(
            RankingAtK(
                k=k,
                **mean_estimates(values),
                coverage=len(np.unique(items)) / len(item_rows),
                popularity=float(popularity[items].mean()),
                popular_share=float(is_popular[items].mean()),
                novelty=float(surprise[items].mean()),
            )
        )
        if model is not None:
            of_model = metrics_by_user(model, relevant, num_users, k)
            gains.append(RankingGain(k=k, **mean_estimates({m: of_model[m] - values[m] for m in values})))
    return Ranker(name=name, at=at, mrr=mean_estimate(1 / first_ranks(shown, relevant, num_users)), gains=gains)


def popularity_of(item_rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Places items by their train rows, `[items]`: 1 for the one with the most, 0 for that with the fewest."""
    place = np.empty(len(item_rows))
    place[np.argsort(-item_rows, kind="stable")] = np.arange(len(item_rows))
    return 1 - place / max(len(item_rows) - 1, 1)


def relevant_popular_share(item_rows: npt.NDArray[np.int64], items: npt.NDArray[np.int64]) -> float:
    """Returns the share of popular items among some items."""
    return float(_is_popular(item_rows)[items].mean())


def _is_popular(item_rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    popular = np.zeros(len(item_rows), bool)
    popular[np.argsort(-item_rows, kind="stable")[: max(round(POPULAR * len(item_rows)), 1)]] = True
    return popular
