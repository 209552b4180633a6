"""Reads the workers and the number of this one from `TF_CONFIG`, without TensorFlow."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import BaseModel, ValidationError

from pipeline.manifest import DotbiasError


class _Cluster(BaseModel):
    chief: list[str] = []
    worker: list[str] = []


class _Task(BaseModel):
    type: Literal["chief", "worker"]
    index: int


class _TfConfig(BaseModel):
    """Holds the part of `TF_CONFIG` that the trainer needs; TensorFlow reads the variable itself too."""

    cluster: _Cluster = _Cluster()
    task: _Task | None = None


def num_workers() -> int:
    """Return the number of workers, 1 without `TF_CONFIG`.

    Raises:
        DotbiasError: TensorFlow would not accept `TF_CONFIG`, or it does not say which of its workers this one is.
    """
    return _num_workers_of(_tf_config().cluster)


def worker_index() -> int:
    """Return the number of this process; 0 is the chief, which alone writes files. Raises as `num_workers` does."""
    config = _tf_config()
    if config.task is None or _num_workers_of(config.cluster) < 2:
        return 0
    return config.task.index + (len(config.cluster.chief) if config.task.type == "worker" else 0)


def _num_workers_of(cluster: _Cluster) -> int:
    return len(cluster.chief) + len(cluster.worker) or 1


def _tf_config() -> _TfConfig:
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        config = _TfConfig.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DotbiasError(
            f"TF_CONFIG cannot be read ({where}{': ' if where else ''}{first['msg']}): {text!r}"
        ) from None
    if _num_workers_of(config.cluster) > 1 and config.task is None:
        raise DotbiasError(f"TF_CONFIG names several workers and no `task`, which says which of them this is: {text!r}")
    return config
