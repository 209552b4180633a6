from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.conftest import SIDES, random_rows
from tests.trainer.datasets import write_dataset
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.loop.checkpoint import CheckpointDirectory, checkpoint_name
from trainer.model.averaging import AverageWeights, WeightAverage
from trainer.train import train


def test_the_average_follows_its_recurrence() -> None:
    weight = tf.Variable([1.0, 2.0])
    average = WeightAverage([weight], 0.7)
    expected = None
    for value in ([3.0, 1.0], [5.0, -2.0], [0.0, 0.5]):
        weight.assign(value)
        average.update()
        expected = np.array(value) if expected is None else 0.7 * expected + 0.3 * np.array(value)
    average.swap()
    np.testing.assert_allclose(weight, expected, rtol=1e-6)
    average.swap()
    np.testing.assert_array_equal(weight, [0.0, 0.5])


def test_without_decay_nothing_is_kept() -> None:
    weight = tf.Variable(1.0)
    average = WeightAverage([weight], 0.0)
    weight.assign(2.0)
    average.update()
    average.swap()
    assert float(weight) == 2.0 and average.saved.averages == []


@pytest.mark.parametrize("validates", [True, False])
def test_each_epoch_counts_once_and_the_eval_split_sees_the_average(validates: bool) -> None:
    weight = tf.Variable(0.0)
    average = WeightAverage([weight], 0.5)
    callback = AverageWeights(average)
    seen = []
    for epoch in range(3):
        callback.on_epoch_begin(epoch)
        weight.assign_add(4.0)
        if validates:
            callback.on_test_begin()
            seen.append(float(weight))
            callback.on_test_end()
        callback.on_epoch_end(epoch)
    assert seen == ([4.0, 6.0, 9.0] if validates else [])
    assert float(weight) == 12.0 and float(average.saved.averages[0]) == 9.0


@pytest.mark.slow
def test_the_exported_tables_are_the_average_of_the_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.train.delete_checkpoints", lambda model_dir: None)
    # With OOV rows that are trained; others are fitted at the end.
    write_dataset(tmp_path / "dataset", random_rows(300, 1), random_rows(0, 2), SIDES, frequency_threshold=5)
    config = TrainerConfig.model_validate(
        {"embedding_dim": 4, "batch_size": 64, "epochs": 3, "checkpoint": {"keep": 3}, "refit": False}
    )
    tables = {}
    for decay in (0.7, 0.0):
        model_dir = tmp_path / str(decay)
        train(str(tmp_path / "dataset"), str(model_dir), config.model_copy(update={"weight_averaging": decay}))
        tables[decay] = table(str(model_dir / "export" / "variables" / "variables"))
    # Averaging does not change how training goes, so the epochs of both are the same.
    epochs = [table(str(tmp_path / "0.7" / "checkpoints" / checkpoint_name(epoch))) for epoch in (1, 2, 3)]
    np.testing.assert_array_equal(tables[0.0], epochs[2])
    np.testing.assert_allclose(tables[0.7], 0.49 * epochs[0] + 0.21 * epochs[1] + 0.3 * epochs[2], rtol=1e-4, atol=1e-6)
    assert CheckpointDirectory(str(tmp_path / "0.7")).last_state().best_period == 3  # type: ignore[union-attr]
    assert Dataset.open(str(tmp_path / "dataset"), config).table_rows["userId"] == len(tables[0.7])


def table(path: str) -> np.ndarray:
    """Returns the users' table of a checkpoint or an export, without its moments and average."""
    reader = tf.train.load_checkpoint(path)
    shapes = reader.get_variable_to_shape_map()
    users = max(shape[0] for name, shape in shapes.items() if len(shape) == 2)
    names = [
        name
        for name, shape in shapes.items()
        if shape == [users, 4] and "OPTIMIZER_SLOT" not in name and not name.startswith("average")
    ]
    (name,) = {name for name in names if "saved_averages" not in name}
    return reader.get_tensor(name)
