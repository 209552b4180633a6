"""Finds the users to rank items for, what each of them has seen, and what the lists should hold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dotbias.evaluation.measure.metrics import Positive
from dotbias.evaluation.rows import Rows

# If there are more users, a random sample of this many is ranked; more would hardly change the means.
_MOST_USERS = 10_000
# User-item scores in total, about five seconds, unless that is fewer than `_FEWEST_USERS` users.
_MOST_SCORES = 100_000_000
_FEWEST_USERS = 1000


class Pairs(NamedTuple):
    """Holds pairs of a user (by position) and an item (by code), both `[pairs]`, ordered by user."""

    users: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]

    def of(self, start: int, end: int) -> Pairs:
        """Returns the pairs of users in [start, end), with positions from `start`."""
        first, last = np.searchsorted(self.users, [start, end])
        return Pairs(self.users[first:last] - start, self.items[first:last])


class RankingTask(NamedTuple):
    """Holds the users to rank for, as codes, with their seen and relevant items.

    `eligible` counts the users with a relevant item, of whom `users` are all or a sample; `unrankable` counts pairs
    whose item is unknown or was seen in train. `liked` are the seen items of positive rows. `item_rows` are the train
    rows of each item, `user_rows` those of each user.
    """

    users: npt.NDArray[np.int64]
    seen: Pairs
    relevant: Pairs
    liked: Pairs
    item_rows: npt.NDArray[np.int64]
    user_rows: npt.NDArray[np.int64]
    eligible: int
    unrankable: int


def ranking_task(
    rows: Rows, train: Rows, positive: Positive, user: str, item: str, seed: int = 0, liked: Positive | None = None
) -> RankingTask | None:
    """Finds the users to rank items for; None if there is none.

    Args:
        rows: the rows to evaluate.
        train: the train rows; items that a user has in them are left out.
        positive: `[rows]`.
        user: the feature that names users.
        item: the feature that names items.
        seed: seed of the sample of users.
        liked: which train rows are positive, `[train rows]`; None: all.
    """
    num_items = train.ids[item].known
    chosen = positive & rows.identified(user)
    codes = rows.codes[user].astype(np.int64)
    keys = _distinct(codes[chosen] * (num_items + 1) + np.minimum(rows.codes[item][chosen], num_items))
    named = train.known(user) & train.known(item)
    seen_keys = train.codes[user][named].astype(np.int64) * (num_items + 1) + train.codes[item][named]
    can_be_shown = (keys % (num_items + 1) < num_items) & ~_occur(keys, seen_keys)
    relevant_keys = keys[can_be_shown]
    users = _distinct(relevant_keys // (num_items + 1))
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
    mine = ranked[train.codes[user][named]]
    seen = _pairs(_distinct(seen_keys[mine]), users, num_items)
    return RankingTask(
        users=users,
        seen=seen,
        relevant=relevant,
        liked=seen if liked is None else _pairs(_distinct(seen_keys[mine & liked[named]]), users, num_items),
        item_rows=_train_rows(train, item, np.arange(num_items)),
        user_rows=_train_rows(train, user, users),
        eligible=eligible,
        unrankable=int((~can_be_shown).sum()),
    )


def _train_rows(train: Rows, name: str, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Counts the train rows of ids, `[codes]`; 0 for an id that train does not have."""
    return np.append(train.id_counts(name), 0)[np.minimum(codes, train.ids[name].known)]


def _distinct(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Sorts the distinct keys, from 0 on; `np.unique` hashes them first, which takes ten times as long for millions."""
    ordered = np.sort(keys)
    return ordered[np.diff(ordered, prepend=-1) > 0]


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
