from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.manifest import Shard
from tests.trainer.conftest import SIDES, random_rows
from tests.trainer.datasets import write_dataset
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.reader import Shuffle, memory_of_shards, num_steps, permutation, read_batches, shards_of_worker

Row = tuple[float, ...]


def rows_of(batches: tf.data.Dataset) -> list[Row]:
    """Returns (user, item, label) of every row, in order."""
    rows: list[Row] = []
    for features, label in batches:
        columns = [features["userId"].numpy(), features["movieId"].numpy(), label.numpy()]
        rows += list(zip(*(column.tolist() for column in columns), strict=True))
    return rows


def rows_in_files(data: Dataset, split: str) -> list[Row]:
    """Returns the same as `rows_of`, without TensorFlow."""
    rows = []
    for shard in data.split(split).shards:
        for line in gzip.decompress(Path(data.file(shard.path)).read_bytes()).decode().splitlines():
            user, item, label = line.split(",")
            rows.append((int(user), int(item), float(np.float32(label))))
    return rows


def test_without_shuffle_the_rows_come_in_the_order_of_the_files(dataset: Dataset) -> None:
    assert rows_of(read_batches(dataset, "eval", 32)) == rows_in_files(dataset, "eval")


def test_batches_that_are_kept_are_read_from_the_files_once(dataset: Dataset) -> None:
    kept = read_batches(dataset, "eval", 32, keep=True)
    rows = rows_of(kept)
    for shard in dataset.split("eval").shards:
        Path(dataset.file(shard.path)).unlink()
    assert rows_of(kept) == rows == rows_of(kept)


@pytest.mark.parametrize("batch_size", [1, 64, 100, 550, 1000])
def test_each_row_once_an_epoch_and_no_batch_across_epochs(dataset: Dataset, batch_size: int) -> None:
    batches = list(read_batches(dataset, "train", batch_size, shuffle=Shuffle(seed=5, epochs=2)))
    steps = num_steps(dataset.split("train").shards, batch_size)
    assert len(batches) == 2 * steps
    assert {len(label) for _, label in batches[: steps - 1]} <= {batch_size}
    for epoch in (batches[:steps], batches[steps:]):
        assert Counter(rows_of(epoch)) == Counter(rows_in_files(dataset, "train"))


def test_the_order_is_a_function_of_seed_and_epoch(dataset: Dataset) -> None:
    def read(shuffle: Shuffle) -> list[Row]:
        return rows_of(read_batches(dataset, "train", 64, shuffle=shuffle))

    both = read(Shuffle(seed=5, epochs=2))
    assert both == read(Shuffle(seed=5, epochs=2))
    assert both[:550] != both[550:]
    assert both != read(Shuffle(seed=6, epochs=2))
    assert both[550:] == read(Shuffle(seed=5, epochs=2, first_epoch=1))


@pytest.mark.parametrize(
    ("batch_size", "skip_steps"), [(64, 0), (64, 1), (64, 7), (64, 8), (50, 2), (50, 10), (1, 100)]
)
def test_an_epoch_can_be_taken_up_after_any_step(dataset: Dataset, batch_size: int, skip_steps: int) -> None:
    whole = rows_of(read_batches(dataset, "train", batch_size, shuffle=Shuffle(seed=5, epochs=2)))
    shuffle = Shuffle(seed=5, epochs=2, skip_steps=skip_steps)
    assert rows_of(read_batches(dataset, "train", batch_size, shuffle=shuffle)) == whole[skip_steps * batch_size :]


# Of six shards the last is shorter: two workers have 300 and 250 rows, and of seven the last has none.
@pytest.mark.parametrize(
    "num_workers", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(7, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("shuffle", [None, Shuffle(5, epochs=1), Shuffle(5, epochs=1, skip_steps=3)])
def test_workers_share_the_rows_in_equally_many_batches(
    dataset: Dataset, num_workers: int, shuffle: Shuffle | None
) -> None:
    steps = num_steps(dataset.split("train").shards, 8 * num_workers, num_workers)
    skipped = shuffle.skip_steps if shuffle else 0
    rows: list[Row] = []
    for worker in range(num_workers):
        context = tf.distribute.InputContext(num_workers, worker, num_workers)
        batches = list(read_batches(dataset, "train", 8 * num_workers, shuffle=shuffle, context=context))
        assert len(batches) == steps - skipped
        assert all(len(label) <= 8 for _, label in batches)
        rows += rows_of(batches)
    left = Counter(rows_in_files(dataset, "train"))
    assert Counter(rows) <= left
    busy = min(num_workers, 6)
    assert len(rows) == 550 - busy * skipped * 8


def test_each_replica_of_a_worker_has_its_own_batches(dataset: Dataset) -> None:
    # Two workers of two replicas: batches of 16 rows, and 10 steps, since the worker with 300 rows needs them.
    rows: list[Row] = []
    for worker in range(2):
        context = tf.distribute.InputContext(2, worker, num_replicas_in_sync=4)
        shuffle = Shuffle(5, epochs=1)
        batches = list(read_batches(dataset, "train", 64, shuffle=shuffle, context=context))
        assert len(batches) == 10 * 2 and all(len(label) <= 16 for _, label in batches)
        rows += rows_of(batches)
    assert Counter(rows) == Counter(rows_in_files(dataset, "train"))


@pytest.mark.parametrize("shuffle", [None, Shuffle(5, epochs=2)])
def test_batches_of_one_shape_are_filled_up_with_rows_of_weight_0(dataset: Dataset, shuffle: Shuffle | None) -> None:
    padded = read_batches(dataset, "train", 64, shuffle=shuffle, static_shape=True)
    assert all(spec.shape == [64] for spec in tf.nest.flatten(padded.element_spec))
    plain = list(read_batches(dataset, "train", 64, shuffle=shuffle))
    for (features, label, weight), (expected_features, expected_label) in zip(padded, plain, strict=True):
        rows = len(expected_label)
        np.testing.assert_array_equal(weight, np.arange(64) < rows)
        np.testing.assert_array_equal(label[:rows], expected_label)
        for name, ids in expected_features.items():
            np.testing.assert_array_equal(features[name][:rows], ids)
            assert not np.any(features[name][rows:])


@given(rows=st.lists(st.integers(1, 1000), max_size=30), num_workers=st.integers(1, 6))
def test_shards_of_workers_are_disjoint_and_near_equal(rows: list[int], num_workers: int) -> None:
    shards = [Shard(path=str(i), rows=r, bytes=0, crc32=0) for i, r in enumerate(rows)]
    parts = [shards_of_worker(shards, num_workers, worker) for worker in range(num_workers)]
    assert sorted(p for part in parts for p in part) == list(range(len(rows)))
    sums = [sum(rows[p] for p in part) for part in parts]
    assert max(sums) - min(sums) <= max(rows, default=0)


@settings(deadline=None, max_examples=50)
@given(rows=st.integers(0, 5000), seed=st.integers(0, 2**62))
def test_permutation(rows: int, seed: int) -> None:
    bits = max(rows - 1, 0).bit_length()
    order = permutation(tf.constant(rows), tf.constant(bits), tf.constant([seed, 3], tf.int64)).numpy()
    assert sorted(order.tolist()) == list(range(rows))
    # Neighbours are torn apart: a random permutation has one pair of them on average.
    assert np.sum(np.diff(order) == 1) < 20 + rows / 100


def test_permutation_spreads_rows_evenly() -> None:
    # Where the first tenth of the rows goes, over tenths of the result: 1000 each if the permutation is random.
    order = permutation(tf.constant(100_000), tf.constant(17), tf.constant([1, 2], tf.int64)).numpy()
    counts = np.bincount(np.flatnonzero(order < 10_000) // 10_000, minlength=10)
    assert counts.min() > 900 and counts.max() < 1100


@pytest.mark.parametrize("string_ids", [False, True])
def test_hashed_tokens_are_read_as_bins(tmp_path: Path, string_ids: bool) -> None:
    rows = random_rows(250, 1, string_ids)
    write_dataset(tmp_path, rows, random_rows(20, 2, string_ids), SIDES, hashed=["userId"], rows_per_shard=60)
    data = Dataset.open(str(tmp_path), TrainerConfig(hashing={"userId": {"num_bins": 11}}))
    read = [int(user) for user, _, _ in rows_of(read_batches(data, "train", 100))]
    assert read == tf.strings.to_hash_bucket_fast([str(t) for t in rows["userId"]], 11).numpy().tolist()


def test_memory_of_the_shards_that_are_decoded_at_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    # Six shards of train rows, one of eval rows.
    for in_flight, rows in ((1, 100 + 90), (2, 200 + 90), (8, 550 + 90)):
        monkeypatch.setattr("trainer.data.reader._SHARDS_IN_FLIGHT", in_flight)
        assert memory_of_shards(dataset) == 100 * rows
