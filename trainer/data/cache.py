"""Decoded shards, kept so that a training or a search decompresses and parses each shard once.

Each shard has a file, empty until the shard is read for the first time, and from then on one int32 tensor of its
columns, `[features + 1, rows]`, the label by its bits, and a mark that it is whole. The reader shuffles behind it, so
that the order of the rows and where an interrupted epoch is taken up do not depend on the cache. In memory it is the
same on `ram://`, TensorFlow's file system in memory. It belongs to one process: what another one left is deleted
unread.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import Literal

import tensorflow as tf

from pipeline.manifest import DotbiasError, join
from trainer.data.dataset import Dataset

# Of each feature, and of the label.
_BYTES_OF_VALUE = 4


def open_cache(data: Dataset, kind: Literal["none", "memory", "disk"], model_dir: str, worker: int = 0) -> Dataset:
    """The same dataset, whose shards are kept once they are decoded; `close_cache` ends that.

    Args:
        data: train and eval split are kept.
        kind: where; `disk` is `<model_dir>/cache-<worker>`, or the local temporary directory if `model_dir` is a URL.
        model_dir: of the training, or the directory of a search.
        worker: each worker of a strategy keeps what it reads itself.
    """
    on_disk = join(model_dir, f"cache-{worker}")
    if tf.io.gfile.exists(on_disk):
        # Left by a training that was killed.
        tf.io.gfile.rmtree(on_disk)
    if kind == "none":
        return data
    if kind == "memory":
        directory = f"ram://dotbias/{data.fingerprint}"
    else:
        directory = tempfile.mkdtemp(prefix="dotbias-cache-") if "://" in model_dir else on_disk
    cached = replace(data, cache=directory)
    try:
        for split in ("train", "eval"):
            for shard in data.split(split).shards:
                # Makes directories, too.
                tf.io.write_file(cached.cache_file(shard.path), "")
    except tf.errors.OpError as error:
        raise DotbiasError(_unusable(directory, error)) from error
    return cached


def close_cache(data: Dataset) -> None:
    """Deletes what `open_cache` made."""
    if data.cache is not None and tf.io.gfile.exists(data.cache):
        tf.io.gfile.rmtree(data.cache)


def memory_of_cache(data: Dataset, kind: str) -> int:
    """Bytes that a cache takes in memory once it holds both splits; several workers have a part each."""
    if kind != "memory":
        return 0
    rows = sum(data.split(split).rows for split in ("train", "eval"))
    return rows * (len(data.sides) + 1) * _BYTES_OF_VALUE


def cache_fault(error: tf.errors.OpError, data: Dataset) -> str | None:
    """What to tell the user if it is the cache that made a step fail."""
    if data.cache is None or data.cache not in str(error):
        return None
    return f"{_unusable(data.cache, error)} The same command then goes on from the last checkpoint."


def _unusable(directory: str, error: tf.errors.OpError) -> str:
    """Say what is wrong with a cache and what to do, without TensorFlow's many lines."""
    return (
        f"The cache of decoded shards in {directory} cannot be written or read ({type(error).__name__}). Make space "
        "there or set `trainer.cache: none`."
    )
