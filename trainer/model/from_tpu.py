"""Copies the weights that a TPU has written to a checkpoint into a model on the host."""

from __future__ import annotations

import tensorflow as tf

from trainer.model.dot_bias import DotBias

_embedding = tf.tpu.experimental.embedding
# Where `DotBias` and its embedding layer have the tables in a checkpoint.
_TABLES = "model/embedding/_tpu_embedding"


def copy_weights(checkpoint: str, model: DotBias) -> None:
    """Assign the tables and the bias of a checkpoint with a `model` in it, whichever kind of TPU wrote it.

    On a TPU itself, tables can be neither read nor assigned. TensorFlow puts the rows of a checkpoint back into their
    order when it makes the tables of `TPUEmbeddingForServing`, so these are made here once more.

    Raises:
        LookupError: the checkpoint lacks a table, which TensorFlow would leave at its initial values.
    """
    saved_names = {name for name, _ in tf.train.list_variables(checkpoint)}
    for name in model.tables:
        if f"{_TABLES}/{name}/.ATTRIBUTES/VARIABLE_VALUE" not in saved_names:
            raise LookupError(f"no table {name!r} in {checkpoint}")
    features = {
        name: _embedding.FeatureConfig(
            table=_embedding.TableConfig(vocabulary_size=table.shape[0], dim=table.shape[1], name=name)
        )
        for name, table in model.tables.items()
    }
    read = _embedding.TPUEmbeddingForServing(features, None)
    layer, saved = tf.Module(), tf.Module()
    layer._tpu_embedding = read
    saved.embedding, saved.bias = layer, model.bias
    status = tf.train.Checkpoint(model=saved).read(checkpoint)
    for config, table in read.embedding_tables.items():
        model.tables[config.name].assign(table)
    # Of the rest of the file, such as the optimizer's slots, nothing is needed.
    status.expect_partial()
