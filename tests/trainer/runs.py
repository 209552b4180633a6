"""Runs whole trainings, and compares two of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset


class Killed(BaseException):
    """Ends a training like a kill: nothing in the trainer catches it."""


@dataclass(frozen=True)
class Finished:
    """Holds an undisturbed training."""

    data: Dataset
    config: TrainerConfig
    model_dir: Path
    result: dict[str, Any]
    progress: list[tuple[str, int, int | None, Mapping[str, float]]]


def weights(model_dir: Path) -> dict[str, Any]:
    path = str(model_dir / "export" / "variables" / "variables")
    return {
        name: tf.train.load_variable(path, name)
        for name, _ in tf.train.list_variables(path)
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH"
    }


def assert_same_weights(one: Path, other: Path, tables: int = 2) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys() and tables == sum(name.startswith("tables/") for name in ours)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    train_part = {key: value for key, value in result["train"].items() if key != "rows_per_second"}
    train_part["epochs"] = [{k: v for k, v in e.items() if k != "seconds"} for e in train_part["epochs"]]
    return {**result, "train": train_part}
