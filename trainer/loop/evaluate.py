"""Measures a model on a split."""

from __future__ import annotations

import tensorflow as tf

from trainer.data.dataset import Dataset
from trainer.data.reader import num_steps, read_batches
from trainer.devices.cluster import num_workers
from trainer.devices.strategy import wants_static_shape
from trainer.model.dot_bias import DotBias

METRICS = ("label-crossentropy", "auc", "pr-auc", "accuracy", "prediction_mean", "label_mean")
# Without gradients and moments, more rows fit at a time.
EVAL_BATCH_SIZE = 1 << 16


def evaluation_batches(strategy: tf.distribute.Strategy, data: Dataset, split: str) -> tuple[tf.data.Dataset, int]:
    """Return batches of all rows of a split once, shared by the workers, and the number of steps."""
    batches = strategy.distribute_datasets_from_function(
        lambda context: read_batches(
            data, split, EVAL_BATCH_SIZE, context=context, static_shape=wants_static_shape(strategy)
        )
    )
    return batches, num_steps(data.split(split).shards, EVAL_BATCH_SIZE, num_workers())


def evaluate(model: DotBias, data: Dataset, split: str) -> dict[str, float]:
    """Measure the metrics over all rows of a split; empty for a split without rows."""
    if not data.split(split).rows:
        return {}
    batches, steps = evaluation_batches(model.distribute_strategy, data, split)
    logs = model.evaluate(batches, steps=steps, return_dict=True, verbose=0)
    return {name: float(logs[name]) for name in METRICS}
