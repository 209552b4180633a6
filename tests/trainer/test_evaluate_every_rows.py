"""Trains with `trainer.evaluate_every_rows`: periods of a number of rows in place of epochs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.conftest import SIDES, random_rows, small_config, small_dataset
from tests.trainer.datasets import write_dataset
from tests.trainer.runs import Killed, assert_same_weights, without_times
from trainer.config import TrainerConfig
from trainer.train import train


def config_of(**changes: Any) -> TrainerConfig:
    # Four steps of 64 rows, of nine in an epoch: 18 steps are four periods, and two more steps.
    values = {"evaluate_every_rows": 200, "epochs": 2, "checkpoint": {"every_steps": 1}, **changes}
    return TrainerConfig.model_validate({**small_config().model_dump(), **values})


def killed_at(row: int, stage: str = "train") -> Any:
    def progress(name: str, done: int, total: int | None, metrics: Mapping[str, float]) -> None:
        if name == stage and done >= row:
            raise Killed

    return progress


@pytest.mark.slow
def test_periods_change_when_the_model_is_measured_and_not_how_it_is_trained(tmp_path: Path) -> None:
    none = {"userId": [], "movieId": [], "label": []}
    write_dataset(tmp_path / "dataset", random_rows(550, 1), none, SIDES)
    # Without eval rows the last weights are the result.
    for name, every in (("epochs", None), ("periods", 200)):
        config = config_of(evaluate_every_rows=every, weight_averaging=0)
        result = train(str(tmp_path / "dataset"), str(tmp_path / name), config)
    assert_same_weights(tmp_path / "periods", tmp_path / "epochs")
    records = result["train"]["epochs"]
    assert [record["rows"] for record in records] == [256, 512, 550 + 192, 550 + 448, 1100]
    assert [record["epoch"] for record in records] == [0.444444, 0.888889, 1.333333, 1.777778, 2]
    # Each period has its own mean, of its own rows.
    means = [record["train"]["label_mean"] for record in records]
    assert np.average(means, weights=np.diff([0, *(r["rows"] for r in records)])) == pytest.approx(
        np.mean(random_rows(550, 1)["label"]), rel=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "row"),
    [
        # In a period that began in the epoch before; in the last one, which is shorter.
        ("cross_entropy", 600),
        ("cross_entropy", 1060),
        ("softmax", 600),
    ],
)
def test_a_training_killed_within_a_period_ends_with_the_same_result(tmp_path: Path, objective: str, row: int) -> None:
    monitor = {"monitor": "ndcg" if objective == "softmax" else "auc", "patience": 9}
    config = config_of(objective=objective, early_stopping=monitor)
    data = small_dataset(tmp_path / "dataset", config)
    undisturbed = train(data.path, str(tmp_path / "undisturbed"), config)
    with pytest.raises(Killed):
        train(data.path, str(tmp_path / "killed"), config, killed_at(row))
    done: list[int] = []
    result = train(data.path, str(tmp_path / "killed"), config, lambda *call: done.append(call[1]))
    assert 0 < done[0] < row and done[-1] == 1100
    assert without_times(result) == without_times(undisturbed)
    assert_same_weights(tmp_path / "killed", tmp_path / "undisturbed")
    assert len(result["train"]["epochs"]) == 5


@pytest.mark.slow
def test_early_stopping_and_the_refit_go_by_periods(tmp_path: Path) -> None:
    # Without averages the first periods are not each better than the one before.
    config = config_of(refit=True, epochs=4, weight_averaging=0, early_stopping={"patience": 2})
    data = small_dataset(tmp_path / "dataset", config)
    calls: list[tuple[str, int, int | None, Mapping[str, float]]] = []
    result = train(data.path, str(tmp_path / "model"), config, lambda *call: calls.append(call))["train"]
    aucs = [record["eval"]["auc"] for record in result["epochs"]]
    best = int(np.argmax(aucs))
    assert result["stopped_early"] and len(aucs) == best + 3 and result["epochs"][best]["epoch"] < 1
    assert result["best_epoch"] == result["epochs"][best]["epoch"]
    # 640 rows make ten steps, so 233 rows are the same part of an epoch: four steps again.
    refit = result["refit"]["epochs"]
    assert [record["epoch"] for record in refit] == [round(0.4 * (period + 1), 6) for period in range(best + 1)]
    assert calls[0][3].keys() == {"period"}
    assert calls[-1][:3] == ("refit", 256 * (best + 1), 256 * (best + 1))
