"""Maps tokens to indices with TensorFlow Transform; the graph that the job runs is the graph that is saved."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

from pipeline.config import FeatureConfig, PipelineConfig
from pipeline.input.columns import ARROW_TYPES


def preprocessing_fn(
    inputs: Mapping[str, tf.Tensor],
    features: Mapping[str, FeatureConfig],
    vocabularies: Mapping[str, beam.PTransform],
) -> dict[str, tf.Tensor]:
    """Maps tokens `[batch]` of the features in `vocabularies` to int64 indices `[batch]`; other features stay tokens.

    `vocabularies` holds the transform that builds each vocabulary; see `FrequencyVocabulary`.
    """
    return {
        name: _apply_vocabulary(inputs[name], vocabularies[name], feature.num_oov_buckets)
        if name in vocabularies
        else tf.identity(inputs[name])
        for name, feature in features.items()
    }


def _apply_vocabulary(tokens: tf.Tensor, vocabulary: beam.PTransform, num_oov_buckets: int) -> tf.Tensor:
    (path,) = tft.experimental.ptransform_analyzer(
        [tokens],
        vocabulary,
        [tf.string],
        [[]],
        # A placeholder while the graph is traced; it is parsed as the type of the tokens.
        output_asset_default_values=[b"0"],
    )
    if num_oov_buckets > 1:
        return tft.apply_vocabulary(tokens, path, num_oov_buckets=num_oov_buckets)
    return tft.apply_vocabulary(tokens, path, default_value=0, lookup_fn=_look_up)


def _look_up(tokens: tf.Tensor, path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Looks tokens up with one OOV bucket; returns their indices and how many there are.

    TensorFlow's table with OOV buckets writes out and hashes each token, also those of the vocabulary.
    """
    # As TFT does with its own tables: one is made for all batches.
    is_known = tf.inside_function() and isinstance(path, tf.__internal__.EagerTensor)
    with tf.init_scope() if is_known else nullcontext():
        lines = tf.lookup.TextFileInitializer(
            path, tokens.dtype, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        )
        table = tf.lookup.StaticHashTable(lines, default_value=-1)
        size = table.size()
    indices = table.lookup(tokens)
    return tf.where(indices < 0, size, indices), size + 1


def tensor_adapter_config(config: PipelineConfig, passthrough: pa.Schema) -> TensorAdapterConfig:
    """Describes to TFT the batches of `as_lists`: one token a row for each feature.

    `passthrough` has the other columns, which TFT does not change.
    """
    tokens = pa.schema([(name, ARROW_TYPES[config.columns[name]]) for name in config.features])
    schema = pa.schema([field.with_type(pa.list_(field.type)) for field in [*tokens, *passthrough]])
    representations = {
        name: schema_pb2.TensorRepresentation(
            dense_tensor=schema_pb2.TensorRepresentation.DenseTensor(column_name=name, shape=schema_pb2.FixedShape())
        )
        for name in config.features
    }
    return TensorAdapterConfig(schema, representations)


def as_lists(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Wraps each value into a list of length one, as TFT requires, without a copy."""
    offsets = pa.array(np.arange(len(rows) + 1, dtype=np.int32))
    return pa.RecordBatch.from_arrays(
        [pa.ListArray.from_arrays(offsets, column) for column in rows.columns], names=rows.schema.names
    )


def without_lists(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Undoes `as_lists`."""
    return pa.RecordBatch.from_arrays([column.flatten() for column in rows.columns], names=rows.schema.names)
