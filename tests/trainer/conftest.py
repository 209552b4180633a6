"""Datasets that the tests of the trainer share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainer  # noqa: F401, before TensorFlow: it asks for Keras 2
from tests.trainer.datasets import write_dataset
from tests.trainer.runs import Finished
from trainer.config import EarlyStoppingConfig, OptimizerConfig, TrainerConfig
from trainer.data.dataset import Dataset
from trainer.train import train

SIDES = {"userId": "user", "movieId": "item"}


def random_rows(rows: int, seed: int, string_ids: bool = False, users: int = 40, items: int = 30) -> dict[str, Any]:
    """Draws labels in twelfths from a model with biases only, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, users, rows), rng.integers(0, items, rows)
    label = np.clip((user % 7 + item % 5 + rng.integers(0, 3, rows)) / 12, 0, 1)
    if string_ids:
        # With what CSV must quote.
        return {"userId": [f'u,{i}"' for i in user], "movieId": [f"item {i}" for i in item], "label": label}
    return {"userId": user.tolist(), "movieId": (item * 1000 - 7).tolist(), "label": label}


def small_config() -> TrainerConfig:
    return TrainerConfig(
        embedding_dim=4,
        batch_size=64,
        epochs=3,
        steps_per_execution=3,
        optimizer=OptimizerConfig(learning_rate=0.003),
        l2=0.01,
        bias_l2_factor=1.0,
        early_stopping=EarlyStoppingConfig(monitor="auc"),
        # Tested in test_refit.py; elsewhere it would double the time.
        refit=False,
        # Tested in test_rescaling.py; elsewhere the export has the tables that training leaves.
        rescale=False,
    )


def small_dataset(path: Path, config: TrainerConfig) -> Dataset:
    """Writes 550 train rows in six shards, the last with 50 rows, and 90 eval rows."""
    write_dataset(path, random_rows(550, 1), random_rows(90, 2), SIDES, frequency_threshold=12, positive_at=0.5)
    return Dataset.open(str(path), config)


@pytest.fixture
def config() -> TrainerConfig:
    return small_config()


@pytest.fixture
def dataset(tmp_path: Path, config: TrainerConfig) -> Dataset:
    return small_dataset(tmp_path / "dataset", config)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    directory, config = tmp_path_factory.mktemp("finished"), small_config()
    data = small_dataset(directory / "dataset", config)
    calls: list[tuple[str, int, int | None, Mapping[str, float]]] = []
    result = train(data.path, str(directory / "model"), config, lambda *call: calls.append(call))
    return Finished(data, config, directory / "model", result, calls)
