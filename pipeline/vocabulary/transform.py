"""Maps tokens to indices with TensorFlow Transform; the graph that the job runs is the graph that is saved."""

from __future__ import annotations

from collections.abc import Mapping

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
    return tft.apply_vocabulary(tokens, path, num_oov_buckets=num_oov_buckets)


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
