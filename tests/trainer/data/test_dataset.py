from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.manifest import DotbiasError
from tests.trainer.conftest import SIDES, random_rows
from tests.trainer.datasets import write_dataset
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset


def test_a_directory_without_a_manifest_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DotbiasError, match="not a complete dataset"):
        Dataset.open(str(tmp_path), TrainerConfig())


def test_both_sides_are_needed(tmp_path: Path) -> None:
    write_dataset(tmp_path, random_rows(20, 1), random_rows(5, 2), {"userId": "user", "movieId": "user"})
    with pytest.raises(DotbiasError, match=r"both sides, user and item. Received: \['user'\]"):
        Dataset.open(str(tmp_path), TrainerConfig())


@pytest.mark.parametrize("name", ["user id", "user-id", "Ünï", "_user", "1st"])
def test_a_name_that_a_signature_cannot_have(tmp_path: Path, name: str) -> None:
    rows = [{name if key == "userId" else key: value for key, value in random_rows(20, n).items()} for n in (1, 2)]
    write_dataset(tmp_path, *rows, {name: "user", "movieId": "item"})
    with pytest.raises(DotbiasError, match=f"letters, digits and '_'. Received: '{name}'"):
        Dataset.open(str(tmp_path), TrainerConfig())


def test_train_rows_are_needed(tmp_path: Path) -> None:
    nothing = {"userId": [], "movieId": [], "label": []}
    write_dataset(tmp_path, nothing, random_rows(5, 2), SIDES)
    with pytest.raises(DotbiasError, match="has no train rows"):
        Dataset.open(str(tmp_path), TrainerConfig())


def test_a_hashed_feature_needs_a_number_of_bins(tmp_path: Path) -> None:
    write_dataset(tmp_path, random_rows(20, 1), random_rows(5, 2), SIDES, hashed=["userId"])
    with pytest.raises(DotbiasError, match=r"hashing: \{userId: \{num_bins: 100000\}\}"):
        Dataset.open(str(tmp_path), TrainerConfig())
    data = Dataset.open(str(tmp_path), TrainerConfig(hashing={"userId": {"num_bins": 12}}))
    assert data.table_rows == {"userId": 12, "movieId": data.manifest.features["movieId"].num_indices}


def test_bins_are_refused_for_other_features(dataset: Dataset) -> None:
    with pytest.raises(DotbiasError, match=r"should name features with encoding `hashing`: \[\]. Received: 'userId'"):
        Dataset.open(dataset.path, TrainerConfig(hashing={"userId": {"num_bins": 12}}))
