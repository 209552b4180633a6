"""Options that follow from the size of the log where the configuration leaves them open (null)."""

from __future__ import annotations

from trainer.config import TrainerConfig
from trainer.dataset import Dataset

# Enough steps an epoch for early stopping to choose among, and rows enough a step for a CPU or GPU to be busy.
_STEPS_PER_EPOCH = 700
_SMALLEST_BATCH, _LARGEST_BATCH = 256, 8192
_LEARNING_RATE = 0.003


def automatic_batch_size(rows: int) -> int:
    """The power of two in [256, 8192] that makes at least 700 steps of an epoch, if one does."""
    largest = max(rows // _STEPS_PER_EPOCH, 1)
    return min(max(1 << (largest.bit_length() - 1), _SMALLEST_BATCH), _LARGEST_BATCH)


def automatic_learning_rate(batch_size: int) -> float:
    """0.003 at batches of 256, and in proportion to the root of the batch size.

    The noise of Adam's steps then stays the same (S. Malladi et al., "On the SDEs and Scaling Rules for Adaptive
    Gradient Algorithms", 2022). docs/benchmarks.md has what larger batches cost.
    """
    return float(_LEARNING_RATE * (batch_size / _SMALLEST_BATCH) ** 0.5)


def with_automatic_values(config: TrainerConfig, data: Dataset) -> TrainerConfig:
    """The configuration with nothing left open: what a training of this dataset goes by."""
    batch_size = config.batch_size or automatic_batch_size(data.split("train").rows)
    rate = config.optimizer.learning_rate or automatic_learning_rate(batch_size)
    optimizer = config.optimizer.model_copy(update={"learning_rate": rate})
    return config.model_copy(update={"batch_size": batch_size, "optimizer": optimizer})
