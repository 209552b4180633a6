"""Measures how well a model ranks all items for a user, except those that the user has in train.

The protocol is that of Krichene and Rendle ("On Sampled Metrics for Item Recommendation", 2020): all items are ranked,
since sampled negatives can reverse the order of two models. Beside the model stand the same list for all users (the
most popular items), another export if one is named, and the model without the users' own vectors: their train items
alone are given to the signature `recommend_for_items`, as for a user who is newer than the model.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dotbias.evaluation.exported.client import Export
from dotbias.evaluation.measure.list_slices import list_slices
from dotbias.evaluation.measure.lists import (
    KS,
    SCORES_AT_A_TIME,
    Shown,
    Vectors,
    measure_ranker,
    metrics_by_user,
    popularity_of,
    rank,
    relevant_popular_share,
)
from dotbias.evaluation.measure.metrics import Positive
from dotbias.evaluation.measure.ranking_task import Pairs, RankingTask, ranking_task
from dotbias.evaluation.results import Ranker, RankerName, Ranking
from dotbias.evaluation.rows import Codes, Rows
from pipeline.manifest import Progress

# Of the items that a user has in train, at most this many are given: more hardly change the lists.
_MOST_GIVEN = 500


def evaluate_ranking(
    export: Export,
    rows: Rows,
    train: Rows,
    positive: Positive,
    user: str,
    item: str,
    progress: Progress,
    seed: int = 0,
    *,
    liked: Positive | None = None,
    other: Export | None = None,
    folds_in: bool = False,
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
        liked: which train rows are positive, `[train rows]`; None: all.
        other: another model to compare with.
        folds_in: whether to compare with the lists for users of whom only the positive train items are known.
    """
    task = ranking_task(rows, train, positive, user, item, seed, liked)
    if task is None:
        return None
    depth = min(max(KS), len(task.item_rows))

    def ranked(u: Vectors, v: Vectors) -> Shown:
        return rank(u, v, task.seen, task.relevant, depth, progress)

    model = ranked(*_vectors(export, task, rows, train, user, item))
    popular = popularity_of(task.item_rows)[:, np.newaxis].astype(np.float32)
    beside: dict[RankerName, Shown] = {"popularity": ranked(np.ones((len(task.users), 1), np.float32), popular)}
    if other is not None:
        beside["other export"] = ranked(*_vectors(other, task, rows, train, user, item))
    if folds_in and export.recommends_for_items:
        beside["fold-in"] = _folded_in(export, task, train, item, depth, progress)
    of = (task.relevant, len(task.users), task.item_rows)
    rankers: list[Ranker] = [measure_ranker("model", model, *of)]
    rankers += [measure_ranker(name, shown, *of, model=model) for name, shown in beside.items()]
    return Ranking(
        users=len(task.users),
        eligible=task.eligible,
        items=len(task.item_rows),
        relevant=len(task.relevant.users),
        unrankable=task.unrankable,
        relevant_popularity=float(popularity_of(task.item_rows)[task.relevant.items].mean()),
        relevant_popular_share=relevant_popular_share(task.item_rows, task.relevant.items),
        rankers=rankers,
        slices=list_slices(task, user, item, model, beside["popularity"]),
    )


def ndcg_by_user(
    export: Export, task: RankingTask, rows: Rows, train: Rows, user: str, item: str, k: int, progress: Progress
) -> npt.NDArray[np.float64]:
    """Computes NDCG@k of each user of a task, `[users]`; the arguments are those of `evaluate_ranking`."""
    u, v = _vectors(export, task, rows, train, user, item)
    k = min(k, len(v))
    shown = rank(u, v, task.seen, task.relevant, k, progress)
    return metrics_by_user(shown, task.relevant, len(task.users), k)["ndcg"]


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


def _folded_in(export: Export, task: RankingTask, train: Rows, item: str, depth: int, progress: Progress) -> Shown:
    """Asks the export for the users' lists by their positive train items alone; other seen items are left out too."""
    known = train.ids[item].tokens.slice(0, train.ids[item].known)
    tops = []
    block = max(SCORES_AT_A_TIME // len(known), 1)
    for start in range(0, len(task.users), block):
        users = min(block, len(task.users) - start)
        given, seen = (_padded(pairs.of(start, start + block), users) for pairs in (task.liked, task.seen))
        tops.append(export.recommended_for_items(known, given[:, :_MOST_GIVEN], seen, depth))
        progress("rank", start + users, len(task.users), {})
    top = np.concatenate(tops)
    # A relevant item that is not in the list counts as one that comes after all items.
    place = top[task.relevant.users] == task.relevant.items[:, np.newaxis]
    ranks = np.where(place.any(axis=1), place.argmax(axis=1) + 1, len(known) + 1)
    return Shown(ranks.astype(np.int64), top)


def _padded(pairs: Pairs, users: int) -> npt.NDArray[np.int64]:
    """Lays the items of each user side by side, `[users, most items of a user]`, -1 where there are no more."""
    number = np.bincount(pairs.users, minlength=users)
    at = np.arange(len(pairs.users)) - np.repeat(np.cumsum(number) - number, number)
    padded = np.full((users, max(int(number.max(initial=0)), 1)), -1)
    padded[pairs.users, at] = pairs.items
    return padded


def _companions(rows: Rows, name: str, codes: npt.NDArray[np.int64]) -> dict[str, Codes]:
    """Finds the codes of all features for ids of one feature, from the last row that has each id."""
    last = np.zeros(len(rows.ids[name].tokens), np.int64)
    last[rows.codes[name]] = np.arange(len(rows))
    at = {other: other_codes[last[codes]] for other, other_codes in rows.codes.items()}
    return at | {name: codes.astype(np.int32)}
