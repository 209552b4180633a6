"""Gets predictions and vectors from an exported model, with raw tokens, as a server does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from dotbias.evaluation.rows import Codes, Rows
from pipeline.manifest import DatasetManifest, DotbiasError, Progress
from trainer.data.lookup import hash_tokens

_ROWS_AT_A_TIME = 1 << 16
_ROWS_OF_A_CHECK = 1000
# Signature of the lists for users of whom only some items are known.
_FOR_ITEMS = "recommend_for_items"


class Export:
    """Loads a SavedModel that `trainer.output.export` wrote.

    Args:
        directory: of the SavedModel.
        manifest: of the dataset whose rows it is asked for.
        fewer: allow the export to take only some of the dataset's features.

    Raises:
        DotbiasError: the export cannot be loaded, or takes other features than the dataset has.
    """

    def __init__(self, directory: str, manifest: DatasetManifest, *, fewer: bool = False) -> None:
        try:
            # The model must live as long as its signature.
            self._model = tf.saved_model.load(directory)
            self._predict = self._model.signatures["serving_default"]
            takes = {name: spec.dtype.name for name, spec in self._predict.structured_input_signature[1].items()}
        except (tf.errors.OpError, OSError, ValueError, KeyError, AttributeError) as error:
            raise DotbiasError(f"{directory} cannot be loaded as an exported model: {error}") from error
        has = {name: feature.token_dtype for name, feature in manifest.features.items()}
        if not (takes.items() <= has.items() if fewer else takes == has):
            raise DotbiasError(f"{directory} takes the features {_listed(takes)}, but the dataset has {_listed(has)}.")
        self._sides = {name: manifest.features[name].side for name in takes}
        self._directory = directory

    def probabilities(self, rows: Rows, progress: Progress) -> npt.NDArray[np.float32]:
        """Predicts P(positive) of all rows, `[rows]`, through the serving signature."""
        tokens = {name: as_tensor(rows.ids[name].tokens) for name in self._sides}
        answers = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            batch = slice(start, start + _ROWS_AT_A_TIME)
            asked = {name: tf.gather(tokens[name], rows.codes[name][batch]) for name in self._sides}
            answers[batch] = self._predict(**asked)["probability"].numpy()
            progress("predict", min(batch.stop, len(rows)), len(rows), {})
        if not np.isfinite(answers).all():
            raise DotbiasError(f"{self._directory} gives probabilities that are not numbers. Train again.")
        return answers

    def vectors(self, feature: str, tokens: pa.Array) -> npt.NDArray[np.float32]:
        """Looks up the embeddings of tokens in the table of a feature, `[tokens, dim]`, the bias last."""
        table = self._model.tables[feature]
        keys = as_tensor(tokens)
        if feature not in self._model.vocabularies:
            return np.asarray(tf.gather(table, hash_tokens(keys, int(table.shape[0]))).numpy())
        handle = self._model.vocabularies[feature].resource_handle
        size = tf.raw_ops.LookupTableSizeV2(table_handle=handle)
        missing = tf.constant(-1, tf.int64)
        index = tf.raw_ops.LookupTableFindV2(table_handle=handle, keys=keys, default_value=missing)
        bucket = hash_tokens(keys, int(table.shape[0]) - int(size))
        return np.asarray(tf.gather(table, tf.where(index < 0, size + tf.cast(bucket, tf.int64), index)).numpy())

    def side_vectors(self, side: str, rows: Rows, at: Mapping[str, Codes]) -> npt.NDArray[np.float32]:
        """Sums the vectors of the codes in `at` over the features of a side: `[codes, dim]`."""
        parts = [
            self.vectors(name, rows.ids[name].tokens.take(pa.array(at[name])))
            for name in sorted(self._sides)
            if self._sides[name] == side
        ]
        return np.sum(parts, axis=0)

    @property
    def recommends_for_items(self) -> bool:
        """Tells whether the export lists items for a user of whom only some items are known."""
        return _FOR_ITEMS in self._model.signatures

    def recommended_for_items(
        self, known: pa.Array, given: npt.NDArray[np.int64], seen: npt.NDArray[np.int64], k: int
    ) -> npt.NDArray[np.int64]:
        """Lists k items for users of whom only some items are known: positions in `known`, -1 where there are no more.

        Args:
            known: tokens of items.
            given: positions of each user's items, `[users, m]`, -1 for none.
            seen: positions of items that are not to be listed, `[users, n]`, -1 for none.
            k: length of the lists.
        """
        no_item = pa.array(["" if pa.types.is_large_string(known.type) else -1], known.type)
        tokens = as_tensor(pa.concat_arrays([known, no_item]))
        items, exclude = (tf.gather(tokens, np.where(at < 0, len(known), at)) for at in (given, seen))
        answer = self._model.signatures[_FOR_ITEMS](items=items, exclude=exclude, k=tf.constant(k))["items"].numpy()
        listed = pa.array(answer.ravel()).cast(known.type)
        found = pc.fill_null(pc.index_in(listed, value_set=known), -1)
        return np.asarray(found.to_numpy().astype(np.int64).reshape(answer.shape))

    def vectors_explain(self, rows: Rows, probability: npt.NDArray[np.float32]) -> bool:
        """Returns whether the vectors give the same probabilities as the signature, on the first rows.

        If not, the export is another kind of model, and its vectors cannot rank items.
        """
        try:
            return np.allclose(self._explained(rows), probability[:_ROWS_OF_A_CHECK], atol=1e-4)
        except (AttributeError, KeyError):
            return False

    def _explained(self, rows: Rows) -> npt.NDArray[np.float64]:
        """Computes P(positive) of the first rows from the vectors."""
        first = {name: codes[:_ROWS_OF_A_CHECK] for name, codes in rows.codes.items()}
        u, v = (self.side_vectors(side, rows, first).astype(np.float64) for side in ("user", "item"))
        model = self._model
        bias, scale, offset = map(float, (model.bias, model.calibration_scale, model.calibration_offset))
        logit = np.sum(u[:, :-1] * v[:, :-1], axis=1) + u[:, -1] + v[:, -1] + bias
        return 1 / (1 + np.exp(-(scale * logit + offset)))


def as_tensor(tokens: pa.Array) -> tf.Tensor:
    """Converts tokens to a tensor, int64 or string `[tokens]`."""
    if pa.types.is_integer(tokens.type):
        return tf.constant(tokens.to_numpy(), tf.int64)
    return tf.constant(tokens.to_pylist(), tf.string, [len(tokens)])


def _listed(features: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {dtype}" for name, dtype in sorted(features.items()))
