"""Writes the SavedModel that is served: raw tokens in, probabilities, lists and vectors out, with TensorFlow alone.

For a label that is a column on a scale (`scale` without `threshold`), it gives the expected `value` of that column too.

```
<export>/
  saved_model.pb, variables/   signatures: serving_default, user_vector, and with a list of items those of `recommend`
  assets/<feature>.txt         the vocabularies
  assets.extra/manifest.json   the dataset's manifest without shards, input and configuration: describes the tables
  assets.extra/tf_serving_warmup_requests   a request to each signature, see `warm_up`
```
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from pipeline.manifest import MANIFEST_NAME, DatasetManifest, DotbiasError, Feature, Side, join, read_manifest
from trainer.data.dataset import Dataset
from trainer.data.lookup import TokenLookup
from trainer.model.dot_bias import DotBias, apply_map, dot_bias
from trainer.output.catalogue import Catalogue, allow, catalogue, read_list, side_features
from trainer.output.recommend import Recommender, recommender_signatures, user_vector
from trainer.output.warm_up import WARM_UP_PATH, example_requests, write_warm_up_requests

# TensorFlow Serving looks at neither this directory's name nor this file.
_EXTRA = "assets.extra"


class ServingModel(tf.Module):
    """Holds what predictions and lists need, without optimizer slots, metrics or Keras objects.

    Args:
        model: has `tables`, `bias` and the calibration: a model, or a loaded export.
        data: describes the tables.
        items: None: nothing lists the items, and only the prediction and `user_vector` are served.
        scratch: a local directory that exists until the model is saved.
    """

    def __init__(self, model: DotBias | Any, data: Dataset, items: Catalogue | None, scratch: str) -> None:
        super().__init__()
        self._features = dict(data.manifest.features)
        self._lookups = {name: TokenLookup(data, name) for name in data.manifest.features}
        label = data.manifest.label
        # If the label is a column on its scale, the expected value of that column is an output too.
        self._scale = label.scale if label.threshold is None else None
        self.tables = dict(model.tables)
        self.bias = model.bias
        self.calibration_scale = model.calibration_scale
        self.calibration_offset = model.calibration_offset
        if self._scale is not None:
            self.value_scale = model.value_scale
            self.value_offset = model.value_offset
        self.vocabularies = {
            name: lookup.vocabulary for name, lookup in self._lookups.items() if lookup.vocabulary is not None
        }
        self.recommender = None
        if items is not None:
            users = side_features(data, "user")
            self.recommender = Recommender(
                items,
                self.tables[items.feature],
                self._lookups[items.feature],
                [(self.tables[name], self._features[name].vocabulary_size or 0) for name in users],
                self.bias,
                (self.calibration_scale, self.calibration_offset),
                scratch,
            )

    def signatures(self) -> dict[str, Any]:
        """Return the signatures by name; tokens come in the type of their column."""
        users = self._specs("user")
        functions: dict[str, tuple[Callable[..., Any], Mapping[str, tf.TensorSpec]]] = {
            "serving_default": (self.predict, {name: _spec(name, of) for name, of in self._features.items()}),
            "user_vector": (lambda tokens: {"vector": user_vector(self._user(tokens), self.bias)}, users),
        }
        if self.recommender is not None:
            functions |= recommender_signatures(self.recommender, self._user, users)
        return {
            name: tf.function(call, input_signature=[specs], autograph=False)
            for name, (call, specs) in functions.items()
        }

    def predict(self, tokens: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return P(positive), `[batch]`, and the expected value of a label on a scale."""
        sides = {name: feature.side for name, feature in self._features.items()}
        logit = dot_bias(self._embeddings(tokens), sides, self.bias)
        answer = {"probability": apply_map(logit, self.calibration_scale, self.calibration_offset)}
        if self._scale is not None:
            low, high = self._scale
            answer["value"] = low + (high - low) * apply_map(logit, self.value_scale, self.value_offset)
        return answer

    def _embeddings(self, tokens: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {name: tf.gather(self.tables[name], self._lookups[name](ids)) for name, ids in tokens.items()}

    def _user(self, tokens: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.add_n([vectors for _, vectors in sorted(self._embeddings(tokens).items())])

    def _specs(self, side: Side) -> dict[str, tf.TensorSpec]:
        return {name: _spec(name, of) for name, of in self._features.items() if of.side == side}


def _spec(name: str, feature: Feature) -> tf.TensorSpec:
    return tf.TensorSpec([None], tf.as_dtype(feature.token_dtype), name=name)


def export_model(model: DotBias, data: Dataset, directory: str) -> None:
    """Write the SavedModel of a trained model, which recommends all items of the vocabulary."""
    _write(model, data, catalogue(data, model.tables), directory)


class Restricted(NamedTuple):
    """Counts the items that an export recommends, and the listed ones that its model does not know."""

    items: int
    unknown: int


def export_with_items(export: str, items: str, directory: str, dataset: str) -> Restricted:
    """Write a SavedModel that has the tables of an exported model and recommends only the items of a list.

    Nothing is trained.

    Args:
        export: what `export_model` wrote.
        items: a file with a token of the first item feature on each line.
        directory: where to write.
        dataset: the dataset, only read where item ids are hashed and the items have further features.

    Raises:
        DotbiasError: the export or the list cannot be read, or no item of the list is known.
    """
    model, data = load_export(export)
    feature = side_features(data, "item")[0]
    listed = read_list(items, data.manifest.features[feature].token_dtype, "--items")
    if feature in data.num_bins:
        if len(side_features(data, "item")) > 1:
            shards = read_manifest(dataset, tf.io.gfile.GFile)
            data = Dataset(dataset, shards, data.num_bins)
        made, unknown = catalogue(data, model.tables, listed), 0
        assert made is not None
    else:
        known = loaded_catalogue(model, data)
        if known is None:
            raise DotbiasError(f"{export} has an empty vocabulary of {feature!r}, so it has no items to recommend.")
        made, unknown = allow(known, data, listed, items)
    _write(model, data, made, directory)
    return Restricted(len(listed) - unknown, unknown)


def load_export(directory: str) -> tuple[Any, Dataset]:
    """Load an export: the object with `tables` and `bias`, and the description of its tables.

    Raises:
        DotbiasError: it is not an export, or was written by a version that did not describe the tables.
    """
    try:
        model = tf.saved_model.load(directory)
    except (tf.errors.OpError, OSError, ValueError) as error:
        raise DotbiasError(f"{directory} cannot be loaded as an exported model: {error}") from None
    try:
        manifest = read_manifest(join(directory, _EXTRA), tf.io.gfile.GFile)
    except DotbiasError:
        raise DotbiasError(
            f"{directory} has no {_EXTRA}/{MANIFEST_NAME}, which describes its tables; an earlier version wrote it. "
            "Train the model again."
        ) from None
    hashed = [name for name, feature in manifest.features.items() if feature.encoding == "hashing"]
    return model, Dataset(directory, manifest, {name: int(model.tables[name].shape[0]) for name in hashed})


def loaded_catalogue(model: Any, data: Dataset) -> Catalogue | None:
    """Return the whole catalogue of a loaded export, items that are not allowed included; None if it has none."""
    recommender = getattr(model, "recommender", None)
    if recommender is None:
        return None
    vectors = getattr(recommender, "vectors", None)
    return Catalogue(
        side_features(data, "item")[0],
        recommender.tokens.numpy(),
        None if vectors is None else vectors.numpy(),
    )


def _write(model: DotBias | Any, data: Dataset, items: Catalogue | None, directory: str) -> None:
    """Write the SavedModel beside `directory` and rename it, so that the directory is whole or is not there."""
    aside = directory.rstrip("/") + ".tmp"
    with tempfile.TemporaryDirectory() as scratch:
        serving = ServingModel(model, data, items, scratch)
        if tf.io.gfile.exists(aside):
            tf.io.gfile.rmtree(aside)
        signatures = serving.signatures()
        tf.saved_model.save(serving, aside, signatures=signatures)
    tf.io.gfile.makedirs(join(aside, _EXTRA))
    specs = {name: function.input_signature[0] for name, function in signatures.items()}
    requests = example_requests(specs, _first_tokens(data, "user"), _first_tokens(data, "item"))
    write_warm_up_requests(join(aside, WARM_UP_PATH), requests, specs)
    with tf.io.gfile.GFile(join(aside, _EXTRA, MANIFEST_NAME), "w") as file:
        file.write(_description(data.manifest).to_json())
    if tf.io.gfile.exists(directory):
        tf.io.gfile.rmtree(directory)
    tf.io.gfile.rename(aside, directory)


def _first_tokens(data: Dataset, side: Side) -> dict[str, Any]:
    """Return the most frequent token of each feature of a side; 0 or "" if no vocabulary names one."""
    tokens: dict[str, Any] = {}
    for name in side_features(data, side):
        feature = data.manifest.features[name]
        token = b""
        if feature.vocabulary_path is not None:
            with tf.io.gfile.GFile(data.file(feature.vocabulary_path), "rb") as file:
                token = file.readline().rstrip(b"\n")
        tokens[name] = int(token or 0) if feature.token_dtype == "int64" else token.decode()
    return tokens


def _description(manifest: DatasetManifest) -> DatasetManifest:
    """Return the manifest of a dataset for its export: paths of the export's vocabularies, no shards or input."""
    features = {
        name: feature
        if feature.vocabulary_path is None
        else feature.model_copy(
            update={
                "vocabulary_path": f"assets/{feature.vocabulary_path.rpartition('/')[2]}",
                "counts_path": None,
                "usual_path": None,
            }
        )
        for name, feature in manifest.features.items()
    }
    splits = {name: split.model_copy(update={"shards": []}) for name, split in manifest.splits.items()}
    return manifest.model_copy(update={"features": features, "splits": splits, "input": [], "config": {}})
