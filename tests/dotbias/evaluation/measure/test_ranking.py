"""Compares ranking metrics with trec_eval, and a small case with a result by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pytrec_eval

from dotbias.evaluation.exported.client import Export
from dotbias.evaluation.measure import ranking as ranking_module
from dotbias.evaluation.measure.ranking import Pairs, evaluate_ranking, measure_ranker, rank
from dotbias.evaluation.shard_rows import read_eval, read_train
from tests.dotbias.evaluation.conftest import make_run, no_progress

USERS, ITEMS, DIM = 40, 300, 5


def random_pairs(seed: int) -> tuple[Pairs, Pairs]:
    """Draws (seen, relevant): disjoint, at least one relevant item for each user."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, (USERS, ITEMS), p=[0.85, 0.1, 0.05])
    kind[np.arange(USERS), rng.integers(0, ITEMS, USERS)] = 2
    return Pairs(*np.nonzero(kind == 1)), Pairs(*np.nonzero(kind == 2))


@pytest.mark.parametrize("scores_at_a_time", [ITEMS, 7 * ITEMS, 1 << 20])
def test_against_trec_eval(scores_at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking_module, "_SCORES_AT_A_TIME", scores_at_a_time)
    rng = np.random.default_rng(1)
    u, v = (rng.normal(size=(n, DIM)).astype(np.float32) for n in (USERS, ITEMS))
    seen, relevant = random_pairs(2)
    scores = u @ v.T
    run = {f"u{user}": {f"i{item}": float(scores[user, item]) for item in range(ITEMS)} for user in range(USERS)}
    for user, item in zip(*seen, strict=True):
        del run[f"u{user}"][f"i{item}"]
    truth: dict[str, dict[str, int]] = {f"u{user}": {} for user in range(USERS)}
    for user, item in zip(*relevant, strict=True):
        truth[f"u{user}"][f"i{item}"] = 1
    measures = {"recall.10,50,100", "ndcg_cut.10,50,100", "recip_rank"}
    peer = pytrec_eval.RelevanceEvaluator(truth, measures).evaluate(run)

    shown = rank(u, v, seen, relevant, 100, no_progress)
    got = measure_ranker("model", shown, relevant, USERS, np.linspace(1, 0, ITEMS))
    for at in got.at:
        assert at.recall.value == pytest.approx(np.mean([peer[f"u{n}"][f"recall_{at.k}"] for n in range(USERS)]))
        assert at.ndcg.value == pytest.approx(np.mean([peer[f"u{n}"][f"ndcg_cut_{at.k}"] for n in range(USERS)]))
    assert got.mrr.value == pytest.approx(np.mean([peer[f"u{n}"]["recip_rank"] for n in range(USERS)]))
    assert [at.k for at in got.at] == [10, 50, 100]
    # What is shown first, by a full sort.
    for user in range(USERS):
        best = sorted(run[f"u{user}"], key=lambda item: -run[f"u{user}"][item])[:100]
        assert [f"i{item}" for item in shown.top[user]] == best


def test_by_hand() -> None:
    """Ranks four items for two users; the first has seen the item with the highest score."""
    u = np.array([[1.0], [-1.0]], np.float32)
    v = np.array([[3.0], [2.0], [1.0], [1.0]], np.float32)
    seen = Pairs(np.array([0]), np.array([0]))
    relevant = Pairs(np.array([0, 1, 1]), np.array([1, 0, 2]))
    shown = rank(u, v, seen, relevant, 4, no_progress)
    # For the second, items 2 and 3 are tied: the relevant one comes last of them.
    assert shown.ranks.tolist() == [1, 4, 2]
    assert shown.top[0].tolist() == [1, *shown.top[0][1:3], -1]
    found = measure_ranker("model", shown, relevant, 2, np.array([1, 0.5, 0.25, 0]))
    assert found.mrr.value == (1 + 1 / 2) / 2
    (at,) = found.at
    assert (at.k, at.recall.value, at.coverage) == (4, 1, 1)
    second = (1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3))
    assert at.ndcg.value == pytest.approx((1 + second) / 2)


def test_the_withheld_square_of_a_checkerboard_ranks_first() -> None:
    """Users like the items of their own colour; one such item of each user is missing in train."""
    n = 12
    vectors = np.array([[1.0 if i % 2 else -1.0, 0.01 * i] for i in range(n)], np.float32)
    users, items = np.nonzero((np.arange(n)[:, None] + np.arange(n)) % 2 == 0)
    withheld = users == items
    seen = Pairs(users[~withheld], items[~withheld])
    relevant = Pairs(users[withheld], items[withheld])
    assert (rank(vectors, vectors, seen, relevant, 1, no_progress).ranks == 1).all()


def test_a_run_by_brute_force(tmp_path: Path) -> None:
    """Asks the signature for each user with each item that they have not seen."""
    data = make_run(tmp_path)
    train = read_train(data, no_progress)
    rows = read_eval(data, train, no_progress)
    export = Export(str(tmp_path / "model" / "export"), data.manifest)
    positive = rows.positive(0.5)
    got = evaluate_ranking(export, rows, train, positive, "userId", "movieId", no_progress)
    assert got is not None
    num_users, num_items = rows.ids["userId"].known, rows.ids["movieId"].known
    seen = {(u, i) for u, i in zip(train.codes["userId"], train.codes["movieId"], strict=True)}
    wanted: dict[int, set[int]] = {}
    for u, i, is_positive in zip(rows.codes["userId"], rows.codes["movieId"], positive, strict=True):
        if is_positive and u < num_users and i < num_items and (u, i) not in seen:
            wanted.setdefault(int(u), set()).add(int(i))
    reciprocal = []
    for user, relevant in wanted.items():
        new = [item for item in range(num_items) if (user, item) not in seen]
        pairs = type(rows)(
            rows.ids,
            {"userId": np.full(len(new), user, np.int32), "movieId": np.array(new, np.int32)},
            np.zeros(len(new), np.float32),
            None,
        )
        order = np.argsort(-export.probabilities(pairs, no_progress).astype(np.float64))
        places = [place for place, at in enumerate(order, start=1) if new[at] in relevant]
        reciprocal.append(1 / places[0])
    assert (got.users, got.eligible, got.items) == (len(wanted), len(wanted), num_items)
    assert got.relevant == sum(map(len, wanted.values()))
    assert got.rankers[0].mrr.value == pytest.approx(np.mean(reciprocal))
    assert {ranker.name for ranker in got.rankers} == {"model", "popularity"}


def test_a_sample_of_users_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking_module, "_MOST_USERS", 5)
    data = make_run(tmp_path)
    train = read_train(data, no_progress)
    rows = read_eval(data, train, no_progress)
    export = Export(str(tmp_path / "model" / "export"), data.manifest)
    got = evaluate_ranking(export, rows, train, rows.positive(0.5), "userId", "movieId", no_progress)
    assert got is not None and got.users == 5 < got.eligible
    again = evaluate_ranking(export, rows, train, rows.positive(0.5), "userId", "movieId", no_progress)
    assert again == got
    # Train rows are all seen.
    assert evaluate_ranking(export, train, train, train.positive(0.5), "userId", "movieId", no_progress) is None
