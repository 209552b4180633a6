"""Holds what a TPU needs: its strategy, where its input lies, which batches it takes, and options of its tables.

A TPU looks up embeddings in one of three ways, which differ by generation:

- with hardware of its own (v2 to v4), `tf.tpu.experimental.embedding.TPUEmbedding`: tables lie on the cores in parts,
  and what the process sees of them is a copy that is brought up to date when a checkpoint is written;
- on SparseCores (v5p, v6e), `TPUEmbeddingV2`: tables lie on the SparseCores in parts, in another order of the rows;
- without such hardware (v5e), `TPUEmbeddingV0`: each core has all tables, and Keras' optimizer moves them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from pipeline.manifest import DotbiasError

_embedding = tf.tpu.experimental.embedding
_Feature = tf.tpu.experimental.HardwareFeature.EmbeddingFeature

# A chip has up to 4 SparseCores, which share the rows of a batch, and a TPU pads arrays to multiples of 8.
_ROWS_MULTIPLE = 8


def make_tpu_strategy() -> tf.distribute.TPUStrategy:
    """Connect to the TPU that `TPU_NAME` names, `local` by default; a process can do so once.

    Raises:
        DotbiasError: it cannot be reached.
    """
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(os.environ.get("TPU_NAME", "local"))
    except (ValueError, tf.errors.OpError) as error:
        raise DotbiasError(f"`trainer.strategy` is tpu, but no TPU can be reached: {error}") from None
    return tf.distribute.TPUStrategy(resolver)


def is_tpu(strategy: tf.distribute.Strategy) -> bool:
    return isinstance(strategy, tf.distribute.TPUStrategy)


def moves_tables_itself(strategy: tf.distribute.Strategy) -> bool:
    """Return whether the tables lie on a TPU's embedding hardware, with an optimizer of its own."""
    if not is_tpu(strategy):
        return False
    return bool(strategy.extended.tpu_hardware_feature.embedding_feature != _Feature.UNSUPPORTED)


def input_options(strategy: tf.distribute.Strategy) -> tf.distribute.InputOptions | None:
    """Return how batches are handed to a strategy: a TPU's stay on the host, which looks up their ids."""
    return tf.distribute.InputOptions(experimental_fetch_to_device=False) if is_tpu(strategy) else None


def check_batch(rows: int, candidates: int, strategy: tf.distribute.Strategy) -> None:
    """Check that a replica's rows, and rows with candidates, can be shared by the parts of a TPU.

    Args:
        rows: `trainer.batch_size`.
        candidates: what `trainer.objective: softmax` appends to the batch of a replica, else 0.
        strategy: the TPU.

    Raises:
        DotbiasError: they cannot.
    """
    replicas = strategy.num_replicas_in_sync
    if rows % (replicas * _ROWS_MULTIPLE):
        raise DotbiasError(
            f"`trainer.batch_size` should be a multiple of {replicas * _ROWS_MULTIPLE}, {_ROWS_MULTIPLE} for each of "
            f"the {replicas} replicas of the TPU. Received: {rows}."
        )
    if candidates % _ROWS_MULTIPLE:
        raise DotbiasError(
            f"`trainer.softmax.candidates` should be a multiple of {_ROWS_MULTIPLE} on a TPU. Received: {candidates}."
        )


def sparse_core_config(ids: Mapping[str, int], strategy: tf.distribute.Strategy) -> Any:
    """Return the options of the SparseCores of a TPU; None if it has none.

    Buffers have room for the worst case, in which all ids of a SparseCore lie on one other, as with a very popular
    item; TensorFlow's default is 256 ids. Tables are not stacked, so that their buffers go by their own names.

    Args:
        ids: how many a replica looks up for a batch, by table.
        strategy: the TPU.
    """
    hardware = strategy.extended.tpu_hardware_feature
    if hardware.embedding_feature != _Feature.V2:
        return None
    # As TensorFlow does where the TPU does not say.
    cores = hardware.num_embedding_devices_per_chip or 4
    most = {name: number // cores for name, number in ids.items()}
    return _embedding.SparseCoreEmbeddingConfig(
        disable_table_stacking=True, max_ids_per_table=most, max_unique_ids_per_table=most
    )
