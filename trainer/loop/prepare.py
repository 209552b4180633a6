"""Checks labels, sizes, memory and shards before training, so that a training that cannot succeed ends at once."""

from __future__ import annotations

import tensorflow as tf

from pipeline.manifest import DotbiasError
from trainer.config import TrainerConfig
from trainer.data.cache import memory_of_cache
from trainer.data.dataset import Dataset
from trainer.data.integrity import check_shards
from trainer.data.reader import memory_of_shards
from trainer.devices.memory import available_bytes, check_memory
from trainer.devices.strategy import smallest_gpu_bytes, wants_tpu
from trainer.loop.defaults import objective_of


def prepare(data: Dataset, config: TrainerConfig, strategy: tf.distribute.Strategy) -> None:
    """Check labels, batch size, memory and shards; set the seeds.

    Args:
        data: the dataset.
        config: with automatic values filled in.
        strategy: the devices.

    Raises:
        DotbiasError: training could not succeed.
    """
    _check_objective(data, config)
    assert config.batch_size is not None
    if config.batch_size % strategy.num_replicas_in_sync:
        raise DotbiasError(
            f"`trainer.batch_size` should be a multiple of the {strategy.num_replicas_in_sync} replicas. "
            f"Received: {config.batch_size}."
        )
    check_that_it_fits(data, config, strategy)
    for split in ("train", "eval"):
        check_shards(data, split, checksums=config.verify_checksums)
    set_seeds(config)


def set_seeds(config: TrainerConfig) -> None:
    tf.keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()


def check_that_it_fits(data: Dataset, config: TrainerConfig, strategy: tf.distribute.Strategy) -> None:
    """Compare what a training takes with the memory that is free; raise `DotbiasError` if it is more."""
    cache = memory_of_cache(data, config.cache)
    gpu, shards = smallest_gpu_bytes(strategy), memory_of_shards(data)
    tpu = wants_tpu(config.strategy)
    check_memory(data.table_rows, config, available_bytes(), shards=shards, cache=cache, gpu=gpu, tpu=tpu)


def _check_objective(data: Dataset, config: TrainerConfig) -> None:
    train = data.split("train")
    if objective_of(config, data) == "softmax":
        if config.early_stopping.monitor != "ndcg":
            raise DotbiasError(
                "`trainer.early_stopping.monitor` should be ndcg with `trainer.objective: softmax`, which predicts no "
                f"labels. Received: {config.early_stopping.monitor}."
            )
        if not train.positive_rows:
            raise DotbiasError(f"{data.path} has no positive train rows, and `softmax` learns from them alone.")
        return
    if train.label_mean not in (0.0, 1.0):
        return
    label = data.manifest.label
    if label.threshold is not None:
        change = f"Move `pipeline.label.threshold`, now {label.threshold:g}, so that rows lie on both sides of it"
    else:
        change = (
            "Add rows with the other label to the log, such as items that a user was shown and did not choose, or "
            "label a column of values"
        )
    positive_alone = " For a log of positive rows alone, set `pipeline.label: implicit`." if train.label_mean else ""
    raise DotbiasError(
        f"All {train.rows:,} train rows of {data.path} have label {train.label_mean:g}, so there is nothing to tell "
        f"apart and AUC cannot be computed. {change}, and preprocess again.{positive_alone}"
    )
