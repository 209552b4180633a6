"""Writes the SavedModel that is served: raw tokens in, probability out, loadable with plain TensorFlow.

For a label that is a column on a scale (`scale` without `threshold`), it gives the expected `value` of that column too.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from trainer.data.dataset import Dataset
from trainer.data.lookup import TokenLookup
from trainer.model.dot_bias import DotBias, apply_map, dot_bias


class ServingModel(tf.Module):
    """Holds what a prediction needs, and no optimizer slots, metrics or Keras objects."""

    def __init__(self, model: DotBias, data: Dataset) -> None:
        super().__init__()
        self._features = dict(data.manifest.features)
        self._sides = dict(model.sides)
        self._lookups = {name: TokenLookup(data, name) for name in data.manifest.features}
        label = data.manifest.label
        # Where the label is a column on its scale, the expected value of that column is an answer too.
        self._scale = label.scale if label.threshold is None else None
        self.tables = model.tables
        self.bias = model.bias
        self.calibration_scale = model.calibration_scale
        self.calibration_offset = model.calibration_offset
        if self._scale is not None:
            self.value_scale = model.value_scale
            self.value_offset = model.value_offset
        self.vocabularies = {
            name: lookup.vocabulary for name, lookup in self._lookups.items() if lookup.vocabulary is not None
        }

    def signature(self) -> dict[str, tf.TensorSpec]:
        """Return the inputs: tokens by feature, `[batch]`, in the type of the column."""
        return {
            name: tf.TensorSpec([None], tf.as_dtype(feature.token_dtype), name=name)
            for name, feature in self._features.items()
        }

    def __call__(self, tokens: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        embeddings = {name: tf.gather(table, self._lookups[name](tokens[name])) for name, table in self.tables.items()}
        logit = dot_bias(embeddings, self._sides, self.bias)
        answer = {"probability": apply_map(logit, self.calibration_scale, self.calibration_offset)}
        if self._scale is not None:
            low, high = self._scale
            answer["value"] = low + (high - low) * apply_map(logit, self.value_scale, self.value_offset)
        return answer


def export_model(model: DotBias, data: Dataset, directory: str) -> None:
    """Write the SavedModel beside `directory` and rename it, so that the directory is whole or is not there."""
    serving = ServingModel(model, data)
    serve = tf.function(serving.__call__, input_signature=[serving.signature()])
    aside = directory.rstrip("/") + ".tmp"
    for path in (aside, directory):
        if tf.io.gfile.exists(path):
            tf.io.gfile.rmtree(path)
    tf.saved_model.save(serving, aside, signatures={"serving_default": serve})
    tf.io.gfile.rename(aside, directory)
