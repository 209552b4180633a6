from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from dotbias.recommending import blocks
from dotbias.recommending.blocks import Items, Lists


def vectors(rows: int, seed: int, dim: int = 9) -> Any:
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def naive(users: Any, items: Any, bias: float, seen: tuple[Any, Any], k: int) -> list[list[tuple[int, float]]]:
    u, v = users.astype(np.float64), items.astype(np.float64)
    logits = (u[:, np.newaxis, :-1] * v[:, :-1]).sum(axis=2) + v[:, -1] + (u[:, -1] + bias)[:, np.newaxis]
    scores = logits.astype(np.float32)
    scores[seen] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return [[(i, scores[u, i]) for i in row if scores[u, i] > -np.inf] for u, row in enumerate(order.tolist())]


def as_rows(lists: Lists) -> list[list[tuple[int, float]]]:
    ends = np.cumsum(lists.lengths)
    pairs = list(zip(lists.items.tolist(), lists.scores, strict=True))
    for user, (start, end) in enumerate(zip(ends - lists.lengths, ends, strict=True)):
        assert (lists.users[start:end] == user).all()
    return [pairs[start:end] for start, end in zip(ends - lists.lengths, ends, strict=True)]


def assert_same(found: Lists, expected: list[list[tuple[int, float]]]) -> None:
    rows = as_rows(found)
    assert [[i for i, _ in row] for row in rows] == [[i for i, _ in row] for row in expected]
    np.testing.assert_allclose([s for row in rows for _, s in row], [s for row in expected for _, s in row], rtol=1e-6)


# Of one group, of several, with items after the last group, of fewer items than k.
@pytest.mark.parametrize(("items", "k"), itertools.product([1, 7, 300, 4099], [1, 10, 100]))
def test_lists_hold_the_highest_logits(items: int, k: int) -> None:
    rng = np.random.default_rng(items)
    seen = rng.integers(0, 50, 400), rng.integers(0, items, 400)
    assert_same(
        Items(vectors(items, 1)).best(vectors(50, 2), 0.3, seen, k),
        naive(vectors(50, 2), vectors(items, 1), 0.3, seen, k),
    )


def test_users_who_have_seen_nearly_everything() -> None:
    items = 700
    everything = np.repeat(np.arange(3), items), np.tile(np.arange(items), 3)
    left = np.ones(3 * items, bool)
    # The first user has seen all, the second all but three, the third all but the last, behind the groups.
    left[[items + 5, items + 6, items + 300, 3 * items - 1]] = False
    seen = everything[0][left], everything[1][left]
    found = Items(vectors(items, 1)).best(vectors(3, 2), 0.0, seen, 5)
    assert found.lengths.tolist() == [0, 3, 1]
    assert_same(found, naive(vectors(3, 2), vectors(items, 1), 0.0, seen, 5))


def test_equal_scores_go_by_the_position_of_the_item() -> None:
    nobody = np.zeros(0, np.int64), np.zeros(0, np.int64)
    distinct = vectors(7, 1)
    # Each vector many times over, at all places of the kernels.
    items = distinct[np.arange(3001) % 7]
    found = as_rows(Items(items).best(vectors(40, 2), 0.1, nobody, 12))
    expected = naive(vectors(40, 2), items, 0.1, nobody, 12)
    assert [[i for i, _ in row] for row in found] == [[i for i, _ in row] for row in expected]
    same = Items(np.zeros((3001, 9), np.float32)).best(vectors(4, 2), 0.1, nobody, 12)
    assert [[i for i, _ in row] for row in as_rows(same)] == [list(range(12))] * 4


def test_lists_do_not_depend_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nearly equal scores, which float32 products of other shapes would order differently.
    items = (1 + 1e-7 * vectors(2000, 1)).astype(np.float32)
    seen = np.arange(100) % 30, np.arange(100) * 7
    whole = Items(items).best(vectors(30, 2), 0.1, seen, 20)
    assert_same(whole, naive(vectors(30, 2), items, 0.1, seen, 20))
    monkeypatch.setattr(blocks, "_BYTES_AT_A_TIME", 4 * 2000 * 3)
    monkeypatch.setattr(blocks, "_PAIRS_AT_A_TIME", 64)
    for one, other in zip(whole, Items(items).best(vectors(30, 2), 0.1, seen, 20), strict=True):
        np.testing.assert_array_equal(one, other)
