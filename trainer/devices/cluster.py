"""The workers that `TF_CONFIG` lists, and which of them this process is; asked without TensorFlow."""

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
    """What matters here of it; TensorFlow reads it anew."""

    cluster: _Cluster = _Cluster()
    task: _Task | None = None


def num_workers() -> int:
    """1 without `TF_CONFIG`.

    Raises:
        DotbiasError: `TF_CONFIG` is not what TensorFlow takes, or does not say which of its workers this one is.
    """
    return _size(_tf_config().cluster)


def worker_index() -> int:
    """Of this process; 0 is the chief, which alone writes what all have made. Raises as `num_workers` does."""
    config = _tf_config()
    if config.task is None or _size(config.cluster) < 2:
        return 0
    return config.task.index + (len(config.cluster.chief) if config.task.type == "worker" else 0)


def _size(cluster: _Cluster) -> int:
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
    if _size(config.cluster) > 1 and config.task is None:
        raise DotbiasError(f"TF_CONFIG names several workers and no `task`, which says which of them this is: {text!r}")
    return config
