from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.tpu import tpu_embedding_v2, tpu_embedding_v3
from tensorflow.python.trackable.base import ShardInfo

from pipeline.manifest import DotbiasError
from tests.trainer.conftest import SIDES, random_rows
from tests.trainer.datasets import write_dataset
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.lookup import hash_tokens
from trainer.model.tables import BiasLastInitializer, index_counts, l2_weights


def test_counts_of_a_vocabulary_with_the_oov_rows_spread(tmp_path: Path) -> None:
    users = ["a"] * 5 + ["b"] * 3 + ["c", "d", "e"]
    train = {"userId": users, "movieId": [1] * 11, "label": [1.0] * 11}
    evaluation = {"userId": ["a"], "movieId": [1], "label": [1.0]}
    write_dataset(tmp_path, train, evaluation, SIDES, frequency_threshold=2, num_oov_buckets=2)
    counts = index_counts(Dataset.open(str(tmp_path), TrainerConfig()))
    assert counts["userId"].tolist() == [5, 3, 1.5, 1.5]
    assert counts["movieId"].tolist() == [11, 0, 0]


def test_counts_of_bins_come_from_the_train_shards(tmp_path: Path) -> None:
    rows = random_rows(300, 3)
    write_dataset(tmp_path, rows, random_rows(50, 4), SIDES, hashed=["movieId"])
    data = Dataset.open(str(tmp_path), TrainerConfig(hashing={"movieId": {"num_bins": 13}}))
    expected = np.bincount(hash_tokens(np.array(rows["movieId"]), 13), minlength=13)
    np.testing.assert_array_equal(index_counts(data)["movieId"], expected)


def test_l2_weights() -> None:
    weights = l2_weights(np.array([0, 0.25, 1, 4, 100], np.float32))
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [2, 2, 2, 0.75, 0.11], rtol=1e-6)


def test_counts_that_do_not_fit_the_vocabulary(dataset: Dataset) -> None:
    path = Path(dataset.file("vocabulary/userId.counts.txt"))
    path.write_text(path.read_text() + "1\n")
    with pytest.raises(DotbiasError, match=r"userId\.counts\.txt has .* counts, but the vocabulary of 'userId' has"):
        index_counts(dataset)


def tpu_table(hosts: int) -> list[np.ndarray]:
    """Makes a table of five rows, divided as TensorFlow divides it among TPU hosts, on the CPU."""
    creator = tpu_embedding_v2.make_sharded_variable_creator(["/cpu:0"] * hosts)

    def without_tpu(next_creator: Callable[..., tf.Variable], **arguments: Any) -> tf.Variable:
        # The only argument that only a TPU strategy takes.
        return next_creator(**{key: value for key, value in arguments.items() if key != "skip_mirrored_creator"})

    initial = functools.partial(BiasLastInitializer(4, 0.05, (1, 2)), (5, 4), dtype=tf.float32)
    with tf.variable_creator_scope(without_tpu), tf.variable_creator_scope(creator):
        table = tf.Variable(initial_value=initial, name="table", shape=(5, 4), dtype=tf.float32)
    return [part.numpy() for part in table.variables]


def test_the_hosts_of_a_tpu_start_with_vectors_of_their_own() -> None:
    parts = tpu_table(2)
    assert [part.shape for part in parts] == [(3, 4), (2, 4)]
    rows = np.concatenate(parts)
    assert len(np.unique(rows[:, :-1])) == 5 * 3 and not rows[:, -1].any()
    np.testing.assert_array_equal(rows, np.concatenate(tpu_table(2)))


def test_a_sparse_core_draws_no_more_than_its_part() -> None:
    # TensorFlow takes an initializer that knows of shards as it is, and calls it with the shape of the whole table.
    draw = tpu_embedding_v3.TPUEmbeddingV2._wrap_initializer(None, BiasLastInitializer(4, 0.05, (1, 2)))
    first, second = (
        draw(shape=(1 << 40, 8), dtype=tf.float32, shard_info=ShardInfo((8, 8), (offset, 0))).numpy()
        for offset in (0, 8)
    )
    assert first.shape == second.shape == (8, 8)
    assert len(np.unique([first[:, :3], second[:, :3]])) == 2 * 8 * 3
    # The bias is the fourth unit; the rest fills the table up.
    assert not first[:, 3:].any() and not second[:, 3:].any()


def test_a_large_table_is_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    initializer = BiasLastInitializer(8, 0.1, (1, 2))
    first = initializer([10, 8]).numpy()
    monkeypatch.setattr("trainer.model.tables._BYTES_AT_A_TIME", 10 * 8 * 4)
    table = initializer([25, 8]).numpy()
    np.testing.assert_array_equal(table[:10], first)
    assert len(np.unique(table[:, 0])) == 25 and not table[:, -1].any()
    assert 0.05 < table[:, :-1].std() < 0.15
