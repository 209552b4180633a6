"""Builds the model of a dataset for the devices that it trains or answers on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from trainer.config import TrainerConfig
from trainer.data.candidates import Candidates
from trainer.data.dataset import Dataset
from trainer.devices.tpu import is_tpu, sparse_core_config
from trainer.loop.defaults import objective_of
from trainer.model.dot_bias import DotBias, log_odds
from trainer.model.optimizers import make_embedding_optimizer, make_optimizer
from trainer.model.softmax import SoftmaxDotBias
from trainer.model.tables import Counts, feature_configs, index_counts, l2_weights

# The same on every machine, since the sums of gradients depend on it: one thread each, and small enough for its cache.
_PARTS_OF_A_STEP = 4
# The most rows whose metrics are updated together: with more, a step is long beside its calls of operations.
_ROWS_MEASURED_TOGETHER = 1 << 18


def build_model(
    data: Dataset, config: TrainerConfig, strategy: tf.distribute.Strategy, counts: Mapping[str, Counts] | None = None
) -> DotBias:
    """Build the model for a dataset, with its initial values; to be called in the strategy's scope.

    `counts` are those of `index_counts`, where they are known already.
    """
    assert config.l2 is not None and config.bias_l2_factor is not None
    finds_items = objective_of(config, data) == "softmax"
    if counts is None:
        counts = index_counts(data) if config.l2 or (finds_items and config.softmax.in_batch) else {}
    ids = None
    if is_tpu(strategy):
        assert config.batch_size is not None
        rows = config.batch_size // strategy.num_replicas_in_sync
        more = {"user": 0, "item": config.softmax.candidates if finds_items else 0}
        ids = {name: rows + more[side] for name, side in data.sides.items()}
    tables = data.sides, feature_configs(data.table_rows, config, ids)
    options: dict[str, Any] = {
        "positive_at": data.manifest.label.positive_at,
        "l2": config.l2,
        "bias_l2_factor": config.bias_l2_factor,
        "l2_weights": {name: l2_weights(of_feature) for name, of_feature in counts.items()} if config.l2 else {},
        "embedding_optimizer": make_embedding_optimizer(config.optimizer, strategy),
        "sparse_core": None if ids is None else sparse_core_config(ids, strategy),
    }
    if not finds_items:
        return DotBias(*tables, initial_bias=log_odds(data.split("train")), **options)
    candidates = Candidates.of(data, config)
    share = None
    if config.softmax.in_batch:
        of_items = counts[candidates.feature]
        share = of_items / of_items.sum()
    # An accelerator divides a large operation among its cores by itself.
    parts = 1 if is_tpu(strategy) or tf.config.list_logical_devices("GPU") else _PARTS_OF_A_STEP
    return SoftmaxDotBias(*tables, candidates=candidates, softmax=config.softmax, share=share, parts=parts, **options)


def compiled_model(
    data: Dataset, config: TrainerConfig, strategy: tf.distribute.Strategy, counts: Mapping[str, Counts] | None = None
) -> DotBias:
    """Build the model with its optimizer; see `build_model`."""
    with strategy.scope():
        model = build_model(data, config, strategy, counts)
        assert config.batch_size is not None
        model.measures_steps_together = config.batch_size * config.steps_per_execution <= _ROWS_MEASURED_TOGETHER
        model.compile(optimizer=make_optimizer(config.optimizer), steps_per_execution=config.steps_per_execution)
    return model
