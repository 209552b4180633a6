"""Derives options from the log where the configuration leaves them open (null)."""

from __future__ import annotations

import math
from typing import Literal

from pipeline.manifest import Label, Split
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset, side_features

# An epoch has enough steps that early stopping can choose among epochs, and a step enough rows to keep the device busy.
_STEPS_PER_EPOCH = 700
_SMALLEST_BATCH, _LARGEST_BATCH = 256, 8192
# With so many steps an epoch, batches of 1024 train as well as those of 256, in less time.
_SMALL_BATCH, _STEPS_OF_SMALL = 1024, 50
_LEARNING_RATE = 0.003
_SOFTMAX_LEARNING_RATE, _SOFTMAX_BATCH = 0.01, 2048
# Chosen on logs of 41,000 items and 22 rows a user, where 0.1 is best, and of 5,000 items and 106 rows.
_TEMPERATURE, _LOWEST_TEMPERATURE, _HIGHEST_TEMPERATURE = 0.75, 0.05, 0.25
# For labels that are values on a scale, and for labels that are 0 or 1.
_SOFT_L2, _HARD_L2 = 0.11, 0.3
# See `vector_l2_factor`.
_USUAL_RATIO = 1.1
# The bias unit has the L2 of the other units at 5 rows per id, and three times as much at 15.
_ROWS_PER_ID, _SMALLEST_FACTOR, _LARGEST_FACTOR = 5, 0.3, 3.0


def automatic_batch_size(rows: int) -> int:
    """Return 256, 1024 from 51,200 rows on, and then the largest power of two, up to 8192, for 700 steps of an epoch.

    >>> [automatic_batch_size(rows) for rows in (1_000, 100_000, 2_000_000, 100_000_000)]
    [256, 1024, 2048, 8192]
    """
    least = _SMALL_BATCH if rows >= _SMALL_BATCH * _STEPS_OF_SMALL else _SMALLEST_BATCH
    most = max(rows // _STEPS_PER_EPOCH, 1)
    return min(max(1 << (most.bit_length() - 1), least), _LARGEST_BATCH)


def automatic_learning_rate(batch_size: int) -> float:
    """Return 0.003 at batches of 256, and in proportion to the root of the batch size.

    The noise of Adam's steps then stays the same (S. Malladi et al., "On the SDEs and Scaling Rules for Adaptive
    Gradient Algorithms", 2022). docs/benchmarks.md has what larger batches cost.

    >>> [round(automatic_learning_rate(batch_size), 4) for batch_size in (256, 1024, 8192)]
    [0.003, 0.006, 0.017]
    """
    return float(_LEARNING_RATE * (batch_size / _SMALLEST_BATCH) ** 0.5)


def automatic_softmax_learning_rate(batch_size: int) -> float:
    """Return the learning rate of the objective `softmax`: 0.01 at batches of 2048, with the root of the batch size.

    >>> [round(automatic_softmax_learning_rate(batch_size), 4) for batch_size in (512, 2048, 8192)]
    [0.005, 0.01, 0.02]
    """
    return float(_SOFTMAX_LEARNING_RATE * (batch_size / _SOFTMAX_BATCH) ** 0.5)


def automatic_temperature(items: int, rows_per_user: float) -> float:
    """Return the temperature of vectors of length 1: 0.75 / log(items / rows of a user), from 0.05 to 0.25.

    Logits of such vectors lie between -1 / temperature and 1 / temperature. A user's items should reach a share of
    1 / rows each, against 1 / items for an item drawn blindly, and the range has to allow for the logarithm of that
    ratio. A wider range than that lets the vectors fit single rows.

    >>> [round(automatic_temperature(*log), 3) for log in ((41_000, 22), (5_000, 106), (100, 50), (10**7, 3))]
    [0.1, 0.195, 0.25, 0.05]
    """
    range_ = math.log(max(items / max(rows_per_user, 1.0), math.e))
    return min(max(_TEMPERATURE / range_, _LOWEST_TEMPERATURE), _HIGHEST_TEMPERATURE)


def automatic_l2(label: Label, train: Split) -> float:
    """Return 0.3 for labels of 0 or 1, 0.11 for values on a scale, and a value in between for blended labels.

    L2 on both vectors is a penalty on the trace norm of the table of logits (N. Srebro et al., "Maximum-Margin Matrix
    Factorization", 2004), whose best strength is in proportion to the standard deviation of the labels' noise
    (V. Koltchinskii et al., "Nuclear-norm penalization and optimal rates for noisy low-rank matrix completion", 2011).
    A label of 0 or 1 is noisier than a value, and the noise of a blended label is nearly the blend of both.
    """
    return _SOFT_L2 + (_HARD_L2 - _SOFT_L2) * _hard_share(label, train)


def vector_l2_factor(per_user: float, per_item: float) -> float:
    """Return how much more L2 vectors need where one side has few ids, from the mean rows per user and per item.

    The largest singular value of a matrix of noise grows with the sum of the roots of both (R. Latala, "Some estimates
    of norms of random matrices", 2005), and L2 should reach it. The L2 of `tables.l2_weights` grows with the root of
    the product of roots instead, which is much smaller where one side has few ids. On the logs that the strength of L2
    was chosen on, their ratio was 1.1.

    >>> [round(vector_l2_factor(25, per_item), 2) for per_item in (25, 250, 5_000)]
    [1.0, 1.0, 1.66]
    """
    roots = math.sqrt(per_user), math.sqrt(per_item)
    return max(sum(roots) / (2 * math.sqrt((roots[0] + 1) * (roots[1] + 1))) / _USUAL_RATIO, 1.0)


def automatic_bias_l2_factor(rows: int, ids: int, least: float = _SMALLEST_FACTOR) -> float:
    """Return a fifth of the mean rows per id, between 0.3 and 3; `least` replaces 0.3.

    With many rows, the vector describes an id better, but a bias with as little L2 would be fitted first. With few
    rows, a bias is all that can be learned about most ids. docs/benchmarks.md measures both cases.

    >>> [automatic_bias_l2_factor(rows, ids=1_000) for rows in (1_000, 10_000, 50_000)]
    [0.3, 2.0, 3.0]
    """
    return min(max(rows / (ids * _ROWS_PER_ID), least), _LARGEST_FACTOR)


def _hard_share(label: Label, train: Split) -> float:
    """Return the share of the hard label in a label: 1 for labels of 0 or 1, 0 for values on a scale."""
    if label.threshold is not None:
        return 1 - (label.soft_weight or 0.0)
    # If every label is 0 or 1, their sum is the number of positive rows.
    return float(math.isclose((train.label_mean or 0.0) * train.rows, train.positive_rows, rel_tol=1e-6))


def objective_of(config: TrainerConfig, data: Dataset) -> Literal["cross_entropy", "softmax"]:
    """Return the objective; `auto` is `softmax` for a log without labels, else `cross_entropy`."""
    if config.objective == "auto":
        return "softmax" if data.manifest.label.column is None else "cross_entropy"
    return config.objective


def with_automatic_values(config: TrainerConfig, data: Dataset) -> TrainerConfig:
    """Return the configuration with values for the options that are None."""
    finds_items = objective_of(config, data) == "softmax"
    train = data.split("train")
    batch_size = config.batch_size or automatic_batch_size(train.rows)
    rate = config.optimizer.learning_rate or (
        automatic_softmax_learning_rate(batch_size) if finds_items else automatic_learning_rate(batch_size)
    )
    optimizer = config.optimizer.model_copy(update={"learning_rate": rate})
    ids = {
        side: sum(data.table_rows[name] for name, of in data.sides.items() if of == side) for side in ("user", "item")
    }
    l2, of_vectors = config.l2, 1.0
    if l2 is None:
        of_vectors = vector_l2_factor(train.rows / ids["user"], train.rows / ids["item"])
        # Normalised vectors have length 1 whatever L2 does.
        l2 = 0.0 if finds_items else of_vectors * automatic_l2(data.manifest.label, train)
    softmax = config.softmax
    if finds_items and softmax.temperature is None:
        users, items = (data.table_rows[side_features(data, side)[0]] for side in ("user", "item"))
        rows_per_user = train.positive_rows / users
        temperature = automatic_temperature(items, rows_per_user) if softmax.normalize else 1.0
        softmax = softmax.model_copy(update={"temperature": temperature})
    stopping = config.early_stopping
    if stopping.monitor is None:
        stopping = stopping.model_copy(update={"monitor": "ndcg" if finds_items else "auc"})
    factor = config.bias_l2_factor
    if factor is None:
        # Ids that only the vocabulary knows have had their rows in earlier nights.
        least = _SMALLEST_FACTOR if data.manifest.counts.vocabulary is None else 1.0
        factor = automatic_bias_l2_factor(train.rows, sum(ids.values()), least) / of_vectors
    values = {
        "batch_size": batch_size,
        "optimizer": optimizer,
        "l2": l2,
        "softmax": softmax,
        "bias_l2_factor": factor,
        "early_stopping": stopping,
    }
    return config.model_copy(update=values)
