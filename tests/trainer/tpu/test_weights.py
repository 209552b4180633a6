"""Weights that a TPU has written reach a model on the host, row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.tpu import tpu_embedding_v3_utils

from tests.trainer.tpu.stub import Engine, stub_strategy
from trainer.build import build_model, compiled_model
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.loop.defaults import with_automatic_values
from trainer.model.dot_bias import DotBias
from trainer.model.from_tpu import copy_weights


@pytest.mark.parametrize("feature", ["UNSUPPORTED", "V1", "V2"])
def test_tables_and_bias(
    feature: str, dataset: Dataset, config: TrainerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_automatic_values(config, dataset)
    engine = Engine()
    engine.install(monkeypatch)
    model = compiled_model(dataset, config, stub_strategy(feature))
    model.bias.assign(5.0)
    for table in engine.tables.values():
        # Only the hardware has it; the host's variables are older.
        table.assign_add(tf.fill(table.shape, 2.0))
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(str(tmp_path / "saved"))
    host = build_model(dataset, config, tf.distribute.get_strategy())
    initial = {name: table.numpy() for name, table in host.tables.items()}
    copy_weights(str(tmp_path / "saved"), host)
    assert host.bias.numpy() == 5.0
    for name, table in host.tables.items():
        rows = table.numpy()
        if feature == "V2":
            np.testing.assert_array_equal(rows, rows_of_sparse_cores(model, name, len(rows)))
            assert not np.array_equal(rows, initial[name])
        else:
            # The same seed gives the same table, on one host.
            np.testing.assert_allclose(rows, initial[name] + (2.0 if feature == "V1" else 0.0), rtol=1e-6)


def rows_of_sparse_cores(model: DotBias, name: str, number: int) -> np.ndarray:
    """The rows of a table one by one, from where TensorFlow says that a row lies."""
    embedding = model.embedding._tpu_embedding
    layout = embedding.embedding_layouts[name]
    cores = layout.num_sparse_cores
    stored = np.concatenate([part.numpy() for part in embedding.variables[name]["parameters"].values])
    # Rows and units are filled up; what is added is not random either.
    assert stored.shape[1] == 8 and not stored[:, 3:].any()
    shard, position = tpu_embedding_v3_utils.map_indices_in_shard(
        cores, layout.sparse_core_shard_row_offset, layout.sparse_core_shard_rotation, np.arange(number)
    )
    return stored.reshape(cores, -1, 8)[shard, position, :4]


def test_a_table_that_is_not_there(dataset: Dataset, config: TrainerConfig, tmp_path: Path) -> None:
    host = build_model(dataset, with_automatic_values(config, dataset), tf.distribute.get_strategy())
    tf.train.Checkpoint(model=tf.train.Checkpoint(bias=host.bias)).write(str(tmp_path / "saved"))
    with pytest.raises(LookupError, match=r"no table '(userId|movieId)'"):
        copy_weights(str(tmp_path / "saved"), host)
