from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from trainer.build import compiled_model
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.reader import read_batches


def test_metrics_of_steps_that_are_measured_together_are_those_of_each_step(
    dataset: Dataset, config: TrainerConfig
) -> None:
    measured: list[dict[str, Any]] = []
    tables: list[list[Any]] = []
    for together in (True, False):
        model = compiled_model(dataset, config, tf.distribute.get_strategy())
        assert model.measures_steps_together
        model.measures_steps_together = together
        # Nine steps in three calls, the last with a smaller batch.
        history = model.fit(read_batches(dataset, "train", 64), epochs=2, verbose=0).history
        measured.append({name: values for name, values in history.items()})
        tables.append([table.numpy() for table in model.tables.values()])
    for ours, theirs in zip(*tables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert measured[0].keys() == measured[1].keys() >= {"loss", "label-crossentropy", "auc", "prediction_mean"}
    for name, values in measured[0].items():
        assert values == pytest.approx(measured[1][name], rel=1e-5), name


def test_large_batches_are_measured_step_by_step(dataset: Dataset, config: TrainerConfig) -> None:
    large = config.model_copy(update={"batch_size": 1 << 17})
    assert not compiled_model(dataset, large, tf.distribute.get_strategy()).measures_steps_together
