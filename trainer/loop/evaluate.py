"""Measures a model on a split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import tensorflow as tf

from trainer.data.dataset import Dataset
from trainer.data.reader import num_steps, read_batches
from trainer.devices.cluster import num_workers
from trainer.devices.strategy import wants_static_shape
from trainer.loop.ranking import RANKING_METRICS, RankingTask, measure_ranking
from trainer.model.dot_bias import DotBias

# The metric that each objective minimises.
LOSSES = ("label-crossentropy", "softmax-crossentropy")
METRICS = (*LOSSES, "auc", "pr-auc", "accuracy", "prediction_mean", "label_mean", *RANKING_METRICS)
# Without gradients and moments, more rows fit at a time.
EVAL_BATCH_SIZE = 1 << 16
# The most rows of a split whose batches stay in memory, 48 MiB with two ids: to set up the reader anew for each
# evaluation takes a tenth of a second.
_MOST_ROWS_KEPT = 1 << 22


def training_loss(logs: Mapping[str, float] | None) -> float:
    """Return the loss among the metrics that Keras gives to a callback; NaN without metrics."""
    return next((float(value) for name, value in (logs or {}).items() if name in LOSSES), math.nan)


def evaluation_batches(model: DotBias, data: Dataset, split: str) -> tuple[tf.data.Dataset, int]:
    """Return batches of all rows of a split once, shared by the workers, and the number of steps."""
    strategy = model.distribute_strategy
    # Each row has a logit for each candidate.
    batch_size = EVAL_BATCH_SIZE if model.append is None else EVAL_BATCH_SIZE >> 4
    batches = strategy.distribute_datasets_from_function(
        lambda context: read_batches(
            data,
            split,
            batch_size,
            context=context,
            static_shape=wants_static_shape(strategy),
            append=model.append,
            keep=data.split(split).rows <= _MOST_ROWS_KEPT,
        )
    )
    return batches, num_steps(data.split(split).shards, batch_size, num_workers())


def evaluate(
    model: DotBias,
    data: Dataset,
    split: str,
    task: RankingTask | None = None,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
) -> dict[str, float]:
    """Measure the metrics over all rows of a split, and those of a task; empty for a split without rows."""
    if not data.split(split).rows:
        return {}
    batches, steps = evaluation_batches(model, data, split)
    logs = model.evaluate(batches, steps=steps, return_dict=True, callbacks=[*callbacks], verbose=0)
    measured = {name: float(logs[name]) for name in METRICS if name in logs}
    return measured if task is None else measured | measure_ranking(model, task)
