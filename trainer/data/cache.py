"""Keeps decoded shards, so that a training or a search decompresses and parses each shard once.

Each shard has a file, which is empty until the shard is first read. From then on it holds one int32 tensor of the
shard's columns, `[features + 1, rows]`, with the bits of the float32 label as its last row, and a mark at the end that
says that the file is whole. The reader shuffles the rows from the cache as it shuffles those from a shard, so the cache
changes neither their order nor the point where an interrupted epoch goes on. A cache in memory has the same files on
`ram://`, TensorFlow's file system in memory. A cache belongs to one process; files of another process are deleted
unread.
"""

from __future__ import annotations

import tempfile
import uuid
from dataclasses import replace
from typing import Literal

import tensorflow as tf

from pipeline.manifest import DotbiasError, join
from trainer.data.dataset import Dataset

# An index and a label take 4 bytes each.
_BYTES_OF_VALUE = 4
# Shards that take less are kept in memory in any case: less than one shard of a million rows takes while it is decoded.
_SMALL_CACHE = 64 << 20


def open_cache(data: Dataset, kind: Literal["none", "memory", "disk"], model_dir: str, worker: int = 0) -> Dataset:
    """Return the dataset with an empty cache; the caller deletes it with `close_cache`.

    Args:
        data: shards of its train and eval split are kept.
        kind: where; `none` keeps in memory what takes less than 64 MiB; `disk` is `<model_dir>/cache-<worker>`, or the
            local temporary directory if `model_dir` is a URL.
        model_dir: the directory of the training or the search.
        worker: number of this worker; each one keeps the shards that it reads itself.

    Raises:
        DotbiasError: the cache cannot be written, for example because the disk is full.
    """
    on_disk = join(model_dir, f"cache-{worker}")
    if tf.io.gfile.exists(on_disk):
        # Left by a training that was killed.
        tf.io.gfile.rmtree(on_disk)
    if kind == "none":
        if memory_of_cache(data, "memory") > _SMALL_CACHE:
            return data
        kind = "memory"
    if kind == "memory":
        # Each cache has files of its own, also of one dataset in one process.
        directory = f"ram://dotbias/{uuid.uuid4().hex}"
    else:
        directory = tempfile.mkdtemp(prefix="dotbias-cache-") if "://" in model_dir else on_disk
    cached = replace(data, cache=directory)
    try:
        for split in ("train", "eval"):
            for shard in data.split(split).shards:
                # Opening a file for writing makes its directories too.
                tf.io.write_file(cached.cache_file(shard.path), "")
    except tf.errors.OpError as error:
        raise DotbiasError(_unusable(directory, error)) from error
    return cached


def close_cache(data: Dataset) -> None:
    """Delete the files of the cache."""
    if data.cache is not None and tf.io.gfile.exists(data.cache):
        tf.io.gfile.rmtree(data.cache)


def memory_of_cache(data: Dataset, kind: str) -> int:
    """Return the bytes that a cache takes in memory once it holds both splits; workers share them."""
    if kind != "memory":
        return 0
    rows = sum(data.split(split).rows for split in ("train", "eval"))
    return rows * (len(data.sides) + 1) * _BYTES_OF_VALUE


def cache_fault(error: tf.errors.OpError, data: Dataset) -> str | None:
    """Return a message for the user if the cache made a step fail, else None."""
    if data.cache is None or data.cache not in str(error):
        return None
    return f"{_unusable(data.cache, error)} The same command then goes on from the last checkpoint."


def _unusable(directory: str, error: tf.errors.OpError) -> str:
    """Say what is wrong with a cache and what to do, without TensorFlow's many lines."""
    return (
        f"The cache of decoded shards in {directory} cannot be written or read ({type(error).__name__}). Make space "
        "there or set `trainer.cache: none`."
    )
