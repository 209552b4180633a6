from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.manifest import DotbiasError
from tests.trainer.conftest import SIDES, random_rows
from tests.trainer.datasets import write_dataset
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.lookup import hash_tokens
from trainer.model.tables import index_counts, l2_weights


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
