"""Compares ranking metrics with trec_eval, and a small case with a result by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
import tensorflow as tf

from dotbias.evaluation.exported.client import Export
from dotbias.evaluation.measure import lists as lists_module
from dotbias.evaluation.measure import ranking_task as task_module
from dotbias.evaluation.measure.list_slices import list_slices
from dotbias.evaluation.measure.lists import Shown, measure_ranker, rank
from dotbias.evaluation.measure.ranking import evaluate_ranking
from dotbias.evaluation.measure.ranking_task import Pairs, RankingTask, ranking_task
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
    monkeypatch.setattr(lists_module, "SCORES_AT_A_TIME", scores_at_a_time)
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
    measures = {"recall.10,20,50,100", "ndcg_cut.10,20,50,100", "success.10,20,50,100", "recip_rank"}
    peer = pytrec_eval.RelevanceEvaluator(truth, measures).evaluate(run)

    shown = rank(u, v, seen, relevant, 100, no_progress)
    item_rows = rng.integers(1, 500, ITEMS)
    got = measure_ranker("model", shown, relevant, USERS, item_rows)

    def mean(measure: str) -> float:
        return float(np.mean([peer[f"u{n}"][measure] for n in range(USERS)]))

    popular = {int(item) for item in np.argsort(-item_rows, kind="stable")[: ITEMS // 10]}
    for at in got.at:
        assert at.recall.value == pytest.approx(mean(f"recall_{at.k}"))
        assert at.ndcg.value == pytest.approx(mean(f"ndcg_cut_{at.k}"))
        assert at.hit_rate.value == pytest.approx(mean(f"success_{at.k}"))
        first = [peer[f"u{n}"]["recip_rank"] for n in range(USERS)]
        assert at.mrr.value == pytest.approx(np.mean([value if value >= 1 / at.k else 0 for value in first]))
        listed = [int(item) for user in shown.top for item in user[: at.k] if item >= 0]
        assert at.coverage == len(set(listed)) / ITEMS
        assert at.popular_share == pytest.approx(sum(item in popular for item in listed) / len(listed))
        assert at.novelty == pytest.approx(np.mean([-np.log2(item_rows[item] / item_rows.sum()) for item in listed]))
    assert got.mrr.value == pytest.approx(mean("recip_rank"))
    assert [at.k for at in got.at] == [10, 20, 50, 100] and got.gains == []
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
    found = measure_ranker("model", shown, relevant, 2, np.array([4, 3, 2, 1]))
    assert found.mrr.value == (1 + 1 / 2) / 2
    (at,) = found.at
    assert (at.k, at.recall.value, at.coverage) == (4, 1, 1)
    second = (1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3))
    assert at.ndcg.value == pytest.approx((1 + second) / 2)
    # Of the other list only the ranks differ: the second user finds both items at once.
    other = shown._replace(ranks=np.array([1, 1, 2]))
    (gain,) = measure_ranker("other export", other, relevant, 2, np.array([4, 3, 2, 1]), model=shown).gains
    assert (gain.k, gain.recall.value, gain.mrr.value) == (4, 0, (1 / 2 - 1) / 2)
    assert gain.ndcg.value == pytest.approx((second - 1) / 2)


def test_gains_are_paired() -> None:
    """Users differ much more than the rankings do: the intervals of both overlap, and that of the gain excludes 0."""
    rng = np.random.default_rng(0)
    relevant = Pairs(np.arange(400), np.zeros(400, np.int64))
    ranks = rng.integers(1, 100, 400)
    top = np.zeros((400, 100), np.int64)
    item_rows = np.ones(100, np.int64)
    model = Shown(np.maximum(ranks - 1, 1), top)
    other = measure_ranker("popularity", Shown(ranks, top), relevant, 400, item_rows, model=model)
    alone = measure_ranker("model", model, relevant, 400, item_rows)
    assert alone.at[2].ndcg.low is not None and other.at[2].ndcg.high is not None
    assert alone.at[2].ndcg.low < other.at[2].ndcg.high
    assert other.gains[2].ndcg.low is not None and other.gains[2].ndcg.low > 0


def test_slices_by_loops() -> None:
    """Users by their train rows; relevant items by popularity, each user's share of those that are found."""
    rng = np.random.default_rng(5)
    seen, relevant = random_pairs(6)
    u, v = (rng.normal(size=(n, DIM)).astype(np.float32) for n in (USERS, ITEMS))
    item_rows, user_rows = rng.permutation(ITEMS) + 1, np.arange(USERS) * 3 // 2
    model = rank(u, v, seen, relevant, 100, no_progress)
    popularity = rank(
        np.ones((USERS, 1), np.float32), item_rows[:, None].astype(np.float32), seen, relevant, 100, no_progress
    )
    task = RankingTask(np.arange(USERS), seen, relevant, seen, item_rows, user_rows, USERS, 0)
    slices = list_slices(task, "user", "item", model, popularity)

    def recall(shown: Shown, users: set[int], items: set[int]) -> float:
        of_user: dict[int, list[bool]] = {}
        for user, item, place in zip(*relevant, shown.ranks, strict=True):
            if user in users and item in items:
                of_user.setdefault(int(user), []).append(bool(place <= 20))
        return float(np.mean([np.mean(found) for found in of_user.values()]))

    by_rows = {"0": (0, 0), "1-4": (1, 4), "5-9": (5, 9), "10-19": (10, 19), "20-49": (20, 49), "50-99": (50, 99)}
    by_place = {
        "most popular tenth": (0, 30),
        "rest of the more popular half": (30, 150),
        "less popular half": (150, 300),
    }
    assert [part.value for part in slices] == [*by_rows, *by_place]
    order = np.argsort(-item_rows).tolist()
    for part in slices:
        users, items = set(range(USERS)), set(range(ITEMS))
        if part.kind == "user: train rows":
            low, high = by_rows[part.value]
            users = {n for n in users if low <= user_rows[n] <= high}
            assert part.users == len(users) and part.ndcg.value is not None
        else:
            assert part.kind == "item: popularity" and part.ndcg.value is None
            items = set(order[slice(*by_place[part.value])])
        assert part.recall.value == pytest.approx(recall(model, users, items))
        assert part.popularity_recall.value == pytest.approx(recall(popularity, users, items))
    assert sum(part.relevant for part in slices) == 2 * len(relevant.users)


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


def test_users_by_their_items_alone_are_asked_for_through_the_signature(tmp_path: Path) -> None:
    """Here the export is asked for one user at a time, with the tokens of the rows."""
    data = make_run(tmp_path)
    train = read_train(data, no_progress)
    rows = read_eval(data, train, no_progress)
    export = Export(str(tmp_path / "model" / "export"), data.manifest)
    names = ("userId", "movieId")
    liked = train.positive(0.5)
    options = {"liked": liked, "other": export, "folds_in": True}
    got = evaluate_ranking(export, rows, train, rows.positive(0.5), *names, no_progress, **options)
    assert got is not None
    rankers = {ranker.name: ranker for ranker in got.rankers}
    assert rankers.keys() == {"model", "popularity", "other export", "fold-in"}
    assert rankers["other export"].at == rankers["model"].at
    assert all(gain.ndcg.value == 0 for gain in rankers["other export"].gains)

    tokens = train.ids["movieId"].tokens.to_pylist()[: train.ids["movieId"].known]
    sign = tf.saved_model.load(str(tmp_path / "model" / "export")).signatures["recommend_for_items"]
    task = ranking_task(rows, train, rows.positive(0.5), *names, liked=liked)
    assert task is not None
    codes = {name: train.codes[name].tolist() for name in names}
    recall = []
    for at, user in enumerate(task.users.tolist()):
        mine = [(i, good) for u, i, good in zip(*codes.values(), liked, strict=True) if u == user and i < len(tokens)]
        given, seen = sorted({tokens[i] for i, good in mine if good}), sorted({tokens[i] for i, _ in mine})
        arguments = {
            "items": tf.constant([given], tf.int64, [1, len(given)]),
            "exclude": tf.constant([seen], tf.int64, [1, len(seen)]),
        }
        listed = sign(**arguments, k=tf.constant(10))["items"].numpy()[0].tolist()
        wanted = {tokens[item] for item in task.relevant.items[task.relevant.users == at]}
        recall.append(len(wanted & set(listed)) / len(wanted))
    assert rankers["fold-in"].at[0].recall.value == pytest.approx(np.mean(recall))
    assert 0 < np.mean(recall) < 1


def test_a_sample_of_users_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_module, "_MOST_USERS", 5)
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
