"""Measures lists by what is known of a user, and by how popular the items are that they should hold."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from dotbias.evaluation.measure.bootstrap import mean_estimate, mean_estimates
from dotbias.evaluation.measure.lists import Shown, metrics_by_user, popularity_of
from dotbias.evaluation.measure.ranking_task import Pairs, RankingTask
from dotbias.evaluation.results import RankingSlice

# Length of the lists, as in training.
K = 20
# Lower ends of the groups of users, by their train rows.
_ACTIVITY = (0, 1, 5, 10, 20, 50, 100, 500)
# Upper ends of the groups of items, as parts of all items, the most popular first.
_POPULARITY = {"most popular tenth": 0.1, "rest of the more popular half": 0.5, "less popular half": 1.0}


def list_slices(task: RankingTask, user: str, item: str, model: Shown, popularity: Shown) -> list[RankingSlice]:
    """Measures the lists of the model and those of the most popular items, by group; empty groups are left out."""
    k = min(K, len(task.item_rows))
    slices = []
    for low, high in itertools.zip_longest(_ACTIVITY, _ACTIVITY[1:]):
        last = task.user_rows.max() if high is None else high - 1
        users = np.flatnonzero((task.user_rows >= low) & (task.user_rows <= last))
        if len(users):
            value = f"{low:,}+" if high is None else f"{low:,}" if last == low else f"{low:,}-{last:,}"
            slices.append(_of_users(f"{user}: train rows", value, users, task, model, popularity, k))
    # 0 for the most popular.
    place = np.round((1 - popularity_of(task.item_rows)) * (len(task.item_rows) - 1)) / len(task.item_rows)
    low = 0.0
    for value, high in _POPULARITY.items():
        mine = (place >= low) & (place < high)
        pairs = np.flatnonzero(mine[task.relevant.items])
        low = high
        if len(pairs):
            slices.append(_of_items(f"{item}: popularity", value, pairs, task, model, popularity, k))
    return slices


def _of_users(
    kind: str,
    value: str,
    users: npt.NDArray[np.int64],
    task: RankingTask,
    model: Shown,
    popularity: Shown,
    k: int,
) -> RankingSlice:
    ours, theirs = (metrics_by_user(shown, task.relevant, len(task.users), k) for shown in (model, popularity))
    numbers = {name: ours[name][users] for name in ("recall", "ndcg")}
    numbers |= {f"popularity_{name}": theirs[name][users] for name in ("recall", "ndcg")}
    return RankingSlice(
        kind=kind,
        value=value,
        k=k,
        users=len(users),
        relevant=int(np.isin(task.relevant.users, users).sum()),
        **mean_estimates(numbers),
    )


def _of_items(
    kind: str,
    value: str,
    pairs: npt.NDArray[np.int64],
    task: RankingTask,
    model: Shown,
    popularity: Shown,
    k: int,
) -> RankingSlice:
    """Measures which share of each user's relevant items of the group is found."""
    distinct, users = np.unique(task.relevant.users[pairs], return_inverse=True)
    of_group = Pairs(users, task.relevant.items[pairs])
    ours, theirs = (
        mean_estimate(metrics_by_user(shown._replace(ranks=shown.ranks[pairs]), of_group, len(distinct), k)["recall"])
        for shown in (model, popularity)
    )
    return RankingSlice(
        kind=kind,
        value=value,
        k=k,
        users=len(distinct),
        relevant=len(pairs),
        recall=ours,
        popularity_recall=theirs,
    )
