from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.conftest import SIDES, random_rows
from tests.trainer.data.test_reader import rows_of
from tests.trainer.datasets import write_dataset
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.lookup import TokenLookup, hash_tokens
from trainer.data.reader import read_batches


@pytest.mark.parametrize("string_ids", [False, True])
# With 99, the vocabularies are empty.
@pytest.mark.parametrize("frequency_threshold", [1, 8, 99])
@pytest.mark.parametrize("hashed", [[], ["movieId"]])
def test_tokens_get_the_rows_that_the_shards_train(
    tmp_path: Path, string_ids: bool, frequency_threshold: int, hashed: list[str]
) -> None:
    train = random_rows(300, 1, string_ids)
    options = {"hashed": hashed, "frequency_threshold": frequency_threshold, "num_oov_buckets": 3}
    write_dataset(tmp_path, train, random_rows(5, 2, string_ids), SIDES, **options)
    data = Dataset.open(str(tmp_path), TrainerConfig(hashing={name: {"num_bins": 17} for name in hashed}))
    for column, name in enumerate(SIDES):
        trained = [row[column] for row in rows_of(read_batches(data, "train", 100))]
        assert TokenLookup(data, name)(tf.constant(np.array(train[name]))).numpy().tolist() == trained


def test_a_new_token_gets_the_row_of_an_oov_bucket(tmp_path: Path) -> None:
    write_dataset(tmp_path, random_rows(300, 1), random_rows(5, 2), SIDES, num_oov_buckets=3)
    data = Dataset.open(str(tmp_path), TrainerConfig())
    rows = TokenLookup(data, "userId")(tf.range(1000, 1100, dtype=tf.int64)).numpy()
    assert {row - data.manifest.features["userId"].vocabulary_size for row in rows} == {0, 1, 2}


def test_a_token_has_one_bin_as_integer_and_as_text() -> None:
    tokens = np.array([0, -5, 2**63 - 1], np.int64)
    bins = hash_tokens(tf.constant(tokens), 1000)
    np.testing.assert_array_equal(bins, hash_tokens(tf.constant([str(t) for t in tokens]), 1000))
    assert bins.dtype == tf.int32
