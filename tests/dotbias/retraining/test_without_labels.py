"""Nights of a log without labels: each row is positive, and models are judged by their lists."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pytest

from dotbias.retraining.config import RetrainingConfig
from dotbias.retraining.decision import Decision, decision_text
from dotbias.retraining.history import History, history_text
from dotbias.retraining.history_page import history_page
from dotbias.retraining.retrain import Night, retrain
from pipeline.config import PipelineConfig
from trainer.config import TrainerConfig

pytestmark = pytest.mark.slow

FIRST, SECOND = datetime.date(2026, 1, 7), datetime.date(2026, 1, 8)
CLICKS = 500
# The gate is as it ships, but a log this small has few users.
GATE = {"margin": {"ndcg": 0.1}}


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Decision], History]:
    """Two nights on the clicks of two groups of users, each with items of its own, none more popular than others."""
    directory = tmp_path_factory.mktemp("clicks")
    rng = np.random.default_rng(0)
    for day in range(2, 8):
        midnight = datetime.datetime(2026, 1, day, tzinfo=datetime.timezone.utc).timestamp()
        user = rng.integers(0, 150, CLICKS)
        item = 2 * rng.integers(0, 40, CLICKS) + user % 2
        rows = np.stack([user, item, midnight + rng.integers(0, 86400, CLICKS)], axis=1).astype(np.int64)
        path = directory / f"2026-01-0{day}.csv"
        np.savetxt(path, rows, "%d", delimiter=",", header="userId,movieId,timestamp", comments="")
    pipeline = PipelineConfig.model_validate(
        {
            "input": {"patterns": [str(directory / "*.csv")]},
            "columns": {"userId": "int64", "movieId": "int64", "timestamp": "int64"},
            "label": "implicit",
            "duplicates": "last",
            "features": {"userId": {"side": "user"}, "movieId": {"side": "item"}},
            "timestamp_column": "timestamp",
        }
    )
    trainer = TrainerConfig.model_validate(
        {
            "embedding_dim": 8,
            "batch_size": 64,
            "epochs": 12,
            "optimizer": {"learning_rate": 0.02},
            "softmax": {"candidates": 16},
        }
    )
    retraining = RetrainingConfig.model_validate({"window_days": 5, "gate": GATE})
    made = []
    for date in (FIRST, SECOND):
        night = Night(str(directory / "out"), date, pipeline, trainer, retraining)
        decision, history = retrain(night, ["--runner=FnApiRunner"], _quiet)
        made.append(decision)
    return made, history


def _quiet(*_: Any) -> None:
    pass


def test_the_first_night_needs_lists_that_find_more_than_popularity(nights: tuple[list[Decision], History]) -> None:
    first = nights[0][0]
    assert (first.outcome, first.reasons, first.metric) == ("promoted", [], "ndcg")
    assert [(check.name, check.passed) for check in first.checks] == [("ndcg", True), ("reasons not to ship", True)]
    assert first.challenger_metrics.auc.value is None
    assert first.challenger_metrics.ndcg.value is not None


def test_the_second_one_is_compared_by_the_lists_of_the_same_users(nights: tuple[list[Decision], History]) -> None:
    second = nights[0][1]
    assert (second.outcome, second.champion) == ("promoted", FIRST.isoformat())
    names = [check.name for check in second.checks]
    assert names[0] == "gain in ndcg"
    assert not [name for name in names if "auc" in name or "log loss" in name or "log_loss" in name]
    assert {"train rows, ratio", "PSI, movieId", "rise of the OOV share, userId"} < set(names)
    assert second.gains is not None and second.champion_metrics is not None and second.refit_gains is not None
    gain, of_both = second.gains.ndcg, (second.challenger_metrics.ndcg, second.champion_metrics.ndcg)
    assert gain.low is not None and gain.value is not None
    assert gain.value == pytest.approx(of_both[0].value - of_both[1].value)  # type: ignore[operator]
    assert second.refit_gains.ndcg.value is not None
    assert second.warm_start["features"]["movieId"]["kept"] > 60
    assert second.warm_start["eval"]["ndcg@20"] > 0


def test_what_a_person_reads_has_lists(nights: tuple[list[Decision], History]) -> None:
    decisions, history = nights
    header, *lines = history_text(history).splitlines()
    assert "ndcg@10" in header
    shown = f"{decisions[1].challenger_metrics.ndcg.value:.4f}"
    assert shown in lines[1]
    assert f"ndcg      {shown}" in decision_text(decisions[1])
    assert "NDCG@10 by night" in history_page(history)
