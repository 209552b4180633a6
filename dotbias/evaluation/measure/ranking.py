"""Measures how well a model ranks all items for a user, except those that the user has in train.

The protocol is that of Krichene and Rendle ("On Sampled Metrics for Item Recommendation", 2020): all items are ranked,
since sampled negatives can reverse the order of two models. Recall@k, NDCG@k and the reciprocal rank are defined as in
trec_eval. Among equal scores the relevant item comes last, so that a constant score has the worst metrics.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from dotbias.evaluation.exported.client import Export
from dotbias.evaluation.measure.bootstrap import mean_estimate
from dotbias.evaluation.measure.metrics import Positive
from dotbias.evaluation.results import Ranker, Ranking, RankingAtK
from dotbias.evaluation.rows import Codes, Rows
from pipeline.manifest import Progress

KS = (10, 50, 100)
# If there are more users, a random sample of this many is ranked; more would hardly change the means.
_MOST_USERS = 10_000
# User-item scores in total, about five seconds, unless that is fewer than `_FEWEST_USERS` users.
_MOST_SCORES = 100_000_000
_FEWEST_USERS = 1000
# Scores that are computed at a time: 32 MiB, and about as much to compare them.
_SCORES_AT_A_TIME = 1 << 23

Vectors = npt.NDArray[np.float32]


class Pairs(NamedTuple):
    """Holds pairs of a user (by position) and an item (by code), both `[pairs]`, ordered by user."""

    users: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]

    def of(self, start: int, end: int) -> Pairs:
        """Returns the pairs of users in [start, end), with positions from `start`."""
        first, last = np.searchsorted(self.users, [start, end])
        return Pairs(self.users[first:last] - start, self.items[first:last])


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
    block = max(_SCORES_AT_A_TIME // len(items), 1)
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


def measure_ranker(
    name: Literal["model", "popularity"],
    shown: Shown,
    relevant: Pairs,
    num_users: int,
    popularity: npt.NDArray[np.float64],
) -> Ranker:
    """Computes the metrics of a ranking, as means over users.

    Args:
        name: name of the ranker.
        shown: result of `rank`.
        relevant: at least one pair of each user.
        num_users: number of users.
        popularity: popularity of each item, in [0, 1].
    """
    number = np.bincount(relevant.users, minlength=num_users)
    first = np.full(num_users, np.iinfo(np.int64).max)
    np.minimum.at(first, relevant.users, shown.ranks)
    at = []
    for k in sorted({min(k, len(popularity)) for k in KS}):
        hit = shown.ranks <= k
        recall = np.bincount(relevant.users, weights=hit, minlength=num_users) / number
        items = shown.top[:, :k]
        items = items[items >= 0]
        at.append(
            RankingAtK(
                k=k,
                recall=mean_estimate(recall),
                ndcg=mean_estimate(_ndcg(shown, relevant, num_users, k)),
                coverage=len(np.unique(items)) / len(popularity),
                popularity=float(popularity[items].mean()),
            )
        )
    return Ranker(name=name, at=at, mrr=mean_estimate(1 / first))


def _ndcg(shown: Shown, relevant: Pairs, num_users: int, k: int) -> npt.NDArray[np.float64]:
    """Computes NDCG@k by user, `[users]`."""
    number = np.bincount(relevant.users, minlength=num_users)
    hit = shown.ranks <= k
    gain = np.bincount(relevant.users, weights=hit / np.log2(shown.ranks + 1), minlength=num_users)
    best = np.cumsum(1 / np.log2(np.arange(k) + 2))[np.minimum(number, k) - 1]
    return np.asarray(gain / best)


def evaluate_ranking(
    export: Export, rows: Rows, train: Rows, positive: Positive, user: str, item: str, progress: Progress, seed: int = 0
) -> Ranking | None:
    """Measures rankings for the users of the rows, or a random sample of them; None if there is nothing to rank.

    Args:
        export: the model; its vectors have to give its probabilities.
        rows: the rows to evaluate.
        train: the train rows; items that a user has in them are left out.
        positive: `[rows]`.
        user: the feature that names users; further features of a user are taken from the user's last row.
        item: the feature that names items; further features of an item are taken from its last train row.
        progress: called with the stage `rank`.
        seed: seed of the sample.
    """
    task = ranking_task(rows, train, positive, user, item, seed)
    if task is None:
        return None
    rankers: list[Ranker] = []
    vectors: dict[Literal["model", "popularity"], tuple[Vectors, Vectors]] = {
        "model": _vectors(export, task, rows, train, user, item),
        "popularity": (np.ones((len(task.users), 1), np.float32), task.popularity[:, np.newaxis].astype(np.float32)),
    }
    for name, (u, v) in vectors.items():
        shown = rank(u, v, task.seen, task.relevant, min(max(KS), len(v)), progress)
        rankers.append(measure_ranker(name, shown, task.relevant, len(task.users), task.popularity))
    return Ranking(
        users=len(task.users),
        eligible=task.eligible,
        items=len(task.popularity),
        relevant=len(task.relevant.users),
        unrankable=task.unrankable,
        relevant_popularity=float(task.popularity[task.relevant.items].mean()),
        rankers=rankers,
    )


class RankingTask(NamedTuple):
    """Holds the users to rank for, as codes, with their seen and relevant items.

    `eligible` counts the users with a relevant item, of whom `users` are all or a sample; `unrankable` counts pairs
    whose item is unknown or was seen in train. `popularity` is of each item, in [0, 1].
    """

    users: npt.NDArray[np.int64]
    seen: Pairs
    relevant: Pairs
    popularity: npt.NDArray[np.float64]
    eligible: int
    unrankable: int


def ranking_task(
    rows: Rows, train: Rows, positive: Positive, user: str, item: str, seed: int = 0
) -> RankingTask | None:
    """Finds the users to rank items for; None if there is none. The arguments are those of `evaluate_ranking`."""
    num_items = train.ids[item].known
    chosen = positive & rows.identified(user)
    codes = rows.codes[user].astype(np.int64)
    keys = np.unique(codes[chosen] * (num_items + 1) + np.minimum(rows.codes[item][chosen], num_items))
    named = train.known(user) & train.known(item)
    seen_keys = train.codes[user][named].astype(np.int64) * (num_items + 1) + train.codes[item][named]
    can_be_shown = (keys % (num_items + 1) < num_items) & ~_occur(keys, seen_keys)
    relevant_keys = keys[can_be_shown]
    users = np.unique(relevant_keys // (num_items + 1))
    if not len(users):
        return None
    eligible = len(users)
    most = min(_MOST_USERS, max(_MOST_SCORES // num_items, _FEWEST_USERS))
    if eligible > most:
        users = np.sort(np.random.default_rng(seed).choice(users, most, replace=False))
    relevant = _pairs(relevant_keys, users, num_items)
    # Only for the chosen users: sorting the pairs of all users would take longer than ranking.
    ranked = np.zeros(len(train.ids[user].tokens), bool)
    ranked[users[users < len(ranked)]] = True
    seen = _pairs(np.unique(seen_keys[ranked[train.codes[user][named]]]), users, num_items)
    counts = np.bincount(train.codes[item], minlength=num_items)[:num_items]
    place = np.empty(num_items)
    place[np.argsort(-counts, kind="stable")] = np.arange(num_items)
    popularity = 1 - place / max(num_items - 1, 1)
    return RankingTask(users, seen, relevant, popularity, eligible, int((~can_be_shown).sum()))


def ndcg_by_user(
    export: Export, task: RankingTask, rows: Rows, train: Rows, user: str, item: str, k: int, progress: Progress
) -> npt.NDArray[np.float64]:
    """Computes NDCG@k of each user of a task, `[users]`; the arguments are those of `evaluate_ranking`."""
    u, v = _vectors(export, task, rows, train, user, item)
    k = min(k, len(v))
    shown = rank(u, v, task.seen, task.relevant, k, progress)
    return _ndcg(shown, task.relevant, len(task.users), k)


def _vectors(
    export: Export, task: RankingTask, rows: Rows, train: Rows, user: str, item: str
) -> tuple[Vectors, Vectors]:
    """Returns the vectors of the users of a task and of all items; their products order the items."""
    num_items = train.ids[item].known
    user_vectors = export.side_vectors("user", rows, _companions(rows, user, task.users))
    item_vectors = export.side_vectors("item", train, _companions(train, item, np.arange(num_items)))
    # A user's bias shifts all scores equally; a 1 in its place adds the item's bias to the product.
    user_vectors[:, -1] = 1
    return user_vectors, item_vectors


def _occur(keys: npt.NDArray[np.int64], among: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Returns which of the sorted, distinct keys are in `among`; faster than `np.isin`, which sorts `among` too."""
    found = np.zeros(len(keys), bool)
    if len(keys):
        position = np.minimum(np.searchsorted(keys, among), len(keys) - 1)
        found[position[keys[position] == among]] = True
    return found


def _pairs(keys: npt.NDArray[np.int64], users: npt.NDArray[np.int64], num_items: int) -> Pairs:
    """Turns the sorted keys that belong to `users`, sorted codes, into pairs by position."""
    of, items = np.divmod(keys, num_items + 1)
    position = np.minimum(np.searchsorted(users, of), len(users) - 1)
    mine = users[position] == of
    return Pairs(position[mine], items[mine])


def _companions(rows: Rows, name: str, codes: npt.NDArray[np.int64]) -> dict[str, Codes]:
    """Finds the codes of all features for ids of one feature, from the last row that has each id."""
    last = np.zeros(len(rows.ids[name].tokens), np.int64)
    last[rows.codes[name]] = np.arange(len(rows))
    at = {other: other_codes[last[codes]] for other, other_codes in rows.codes.items()}
    return at | {name: codes.astype(np.int32)}
