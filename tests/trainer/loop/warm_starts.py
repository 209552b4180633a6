"""Trains small models to start from, and reads what they saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tests.trainer.conftest import small_config
from tests.trainer.datasets import write_dataset
from trainer.build import compiled_model
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.devices.strategy import make_strategy
from trainer.loop.defaults import with_automatic_values
from trainer.loop.saved_state import make_slots
from trainer.loop.warm_start import Former, WarmStart
from trainer.train import train

# Two features a side, string and int64, one of them hashed in some tests.
FEATURES = {"userId": "user", "country": "user", "movieId": "item", "genre": "item"}


def rows_of(rows: int, seed: int, first_user: int) -> dict[str, Any]:
    """Draws users and movies from a first number on, so that two logs share some of them."""
    rng = np.random.default_rng(seed)
    user, movie = rng.integers(0, 20, rows) + first_user, rng.integers(0, 15, rows) + first_user // 2
    label = np.clip((user % 7 + movie % 5 + rng.integers(0, 3, rows)) / 12, 0, 1)
    return {
        "userId": [f"u{i}" for i in user],
        "country": [f"c{i % 4}" for i in user],
        "movieId": (movie * 1000 - 7).tolist(),
        "genre": (movie % 6).tolist(),
        "label": label,
    }


def config_of(**changes: Any) -> TrainerConfig:
    return TrainerConfig.model_validate({**small_config().model_dump(), **changes})


class Trained(NamedTuple):
    dataset: str
    model_dir: Path
    config: TrainerConfig
    result: dict[str, Any]

    @property
    def start(self) -> WarmStart:
        return WarmStart(self.dataset, str(self.model_dir))


def write_log(directory: Path, seed: int, first_user: int, hashed: tuple[str, ...], buckets: int) -> str:
    write_dataset(
        directory,
        rows_of(500, seed, first_user),
        rows_of(90, seed + 1, first_user),
        FEATURES,
        hashed=hashed,
        num_oov_buckets=buckets,
        frequency_threshold=20,
        positive_at=0.5,
    )
    return str(directory)


def trained(directory: Path, config: TrainerConfig, *, hashed: tuple[str, ...] = ()) -> Trained:
    dataset, model_dir = write_log(directory / "dataset", 1, 0, hashed, buckets=2), directory / "model"
    return Trained(dataset, model_dir, config, train(dataset, str(model_dir), config))


def next_log(directory: Path, *, hashed: tuple[str, ...] = (), buckets: int = 2) -> str:
    """Writes a log with some new users and movies, and without some former ones."""
    return write_log(directory, 3, 6, hashed, buckets)


def exported(model_dir: Path) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(model_dir / "export" / "variables" / "variables"))
    return {
        name.split("/")[1] if name.startswith("tables/") else "bias": reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.startswith(("tables/", "bias/"))
    }


def saved(model_dir: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of the state by name, such as "tables/userId"."""
    reader = tf.train.load_checkpoint(str(model_dir / "state" / "weights"))
    end = "/.ATTRIBUTES/VARIABLE_VALUE"
    names = [name for name in reader.get_variable_to_shape_map() if name.endswith(end)]
    return {name.removesuffix(end): reader.get_tensor(name) for name in names}


def vocabulary(dataset: str, name: str) -> list[str]:
    return Path(dataset, "vocabulary", f"{name}.txt").read_text().splitlines()


def carried(former: Trained, dataset: str, config: TrainerConfig) -> tuple[Any, dict[str, Any]]:
    """Returns a new model with the former weights, and the counts."""
    data = Dataset.open(dataset, config)
    config = with_automatic_values(config, data)
    model = compiled_model(data, config, make_strategy("cpu"))
    make_slots(model)
    opened = Former.open(former.start, former.result["fingerprint"], data, config)
    counts = opened.carry_over(model, data)
    return model, {name: count.model_dump() for name, count in counts.items()}
