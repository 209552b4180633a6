"""Says in the user's words why a step of a training failed."""

from __future__ import annotations

import tensorflow as tf

from trainer.data.cache import cache_fault
from trainer.data.dataset import Dataset
from trainer.data.integrity import READER_ERRORS, find_fault
from trainer.devices.cluster import num_workers


def explanation(error: tf.errors.OpError, data: Dataset) -> str | None:
    """Return the cause of a failed step if it is the cache, a damaged shard or a lost worker; else None."""
    if fault := cache_fault(error, data):
        return fault
    if isinstance(error, READER_ERRORS) and (fault := find_fault(data, "train") or find_fault(data, "eval")):
        return fault
    if num_workers() > 1:
        return (
            f"Another worker does not answer any more ({type(error).__name__}). Start all workers again with the same "
            "command: training goes on from the last checkpoint."
        )
    return None
