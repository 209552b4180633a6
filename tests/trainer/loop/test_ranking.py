"""Rankings of eval users, compared with loops over users and items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainer.loop.ranking
from tests.trainer.datasets import write_dataset
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.loop.ranking import NDCG, RECALL, RankingTask

SIDES = {"user": "user", "item": "item"}


def dataset(path: Path, train: dict[str, Any], evaluation: dict[str, Any]) -> Dataset:
    write_dataset(path, train, evaluation, SIDES, frequency_threshold=2, positive_at=0.5)
    return Dataset.open(str(path), TrainerConfig())


def rows(number: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    label = (rng.random(number) < 0.8).astype(float).tolist()
    # Some ids occur once, and are out of vocabulary.
    return {
        "user": [int(x) for x in rng.integers(0, 60, number)],
        "item": [int(x) for x in rng.zipf(1.3, number) % 200],
        "label": label,
    }


def tokens(data: Dataset, name: str) -> list[int]:
    return [int(line) for line in Path(data.file(f"vocabulary/{name}.txt")).read_text().splitlines()]


@pytest.mark.parametrize("scores_at_a_time", [1, 1 << 23])
def test_metrics_are_those_of_loops(tmp_path: Path, scores_at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer.loop.ranking, "_SCORES_AT_A_TIME", scores_at_a_time)
    train, evaluation = rows(900, 1), rows(200, 2)
    data = dataset(tmp_path, train, evaluation)
    task = RankingTask.draw(data, seed=1)
    assert task is not None
    rng = np.random.default_rng(3)
    tables = {name: rng.normal(size=(size, 5)).astype(np.float32) for name, size in data.table_rows.items()}
    users, items = tokens(data, "user"), tokens(data, "item")
    ndcg, recall = [], []
    for row, user in enumerate(users):
        seen = {i for u, i in zip(train["user"], train["item"], strict=True) if u == user}
        wanted = {
            i
            for u, i, label in zip(evaluation["user"], evaluation["item"], evaluation["label"], strict=True)
            if u == user and label == 1 and i in items and i not in seen
        }
        if not wanted:
            continue
        u, v = tables["user"][row], tables["item"]
        scores = v[:, :-1] @ u[:-1] + v[:, -1]
        shown = [items[i] for i in np.argsort(-scores[: len(items)]) if items[i] not in seen][:20]
        hits = [place for place, item in enumerate(shown) if item in wanted]
        recall.append(len(hits) / len(wanted))
        ideal = sum(1 / np.log2(place + 2) for place in range(min(len(wanted), 20)))
        ndcg.append(sum(1 / np.log2(place + 2) for place in hits) / ideal)
    assert len(recall) > 20
    measured = task.measure(tables.__getitem__)
    assert measured == pytest.approx({NDCG: np.mean(ndcg), RECALL: np.mean(recall)}, rel=1e-5)


def test_a_sample_depends_on_the_seed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer.loop.ranking, "_USERS", 10)
    data = dataset(tmp_path, rows(900, 1), rows(200, 2))
    drawn = [RankingTask.draw(data, seed) for seed in (1, 1, 2)]
    users = [task.users["user"].tolist() for task in drawn if task is not None]
    assert users[0] == users[1] != users[2] and 0 < len(users[0]) <= 10


@pytest.mark.parametrize("item", [1, 99], ids=["seen in train", "out of vocabulary"])
def test_without_anything_to_find_there_is_no_task(tmp_path: Path, item: int) -> None:
    train = {"user": [1, 1, 2, 2], "item": [1, 2, 1, 2], "label": [1.0] * 4}
    assert RankingTask.draw(dataset(tmp_path, train, {"user": [1], "item": [item], "label": [1.0]}), 1) is None


def test_equal_scores_gain_nothing(tmp_path: Path) -> None:
    train = {"user": [1] * 2 + [2] * 80, "item": [0, 0, *range(40), *range(40)], "label": [1.0] * 82}
    task = RankingTask.draw(dataset(tmp_path, train, {"user": [1], "item": [7], "label": [1.0]}), 1)
    assert task is not None
    same = {"user": np.zeros((3, 3), np.float32), "item": np.zeros((41, 3), np.float32)}
    assert task.measure(same.__getitem__) == {NDCG: 0.0, RECALL: 0.0}
