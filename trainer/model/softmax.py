"""Defines the objective `softmax`: which of all items a user chooses, learned from positive rows alone.

The sum over all items is estimated from candidates, each divided by the number of times that it is expected among them
(Y. Bengio and J.-S. Senecal, "Adaptive importance sampling to accelerate training of a neural probabilistic language
model", 2008; the "logQ correction"). `tfrs.tasks.Retrieval` always compares with the items of the whole batch, and has
neither uniform candidates nor an item bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainer.config import SoftmaxConfig
from trainer.data.candidates import Candidates
from trainer.data.dataset import Dataset
from trainer.data.reader import Batch, read_batches
from trainer.model.dot_bias import DotBias, Untracked, over_replicas
from trainer.model.oov import untrained

# The logit of a candidate that must not count: it adds nothing to the sum.
_MASKED = -1e9
# New ids resemble rare ones, so an OOV bucket without train rows gets the mean of this share of the vocabulary.
_RAREST = 0.1
# The global bias is minus the mean log-sum over all items for this many rows, which differ by a few tenths.
_ROWS_OF_BIAS = 256
_ITEMS_AT_A_TIME = 1 << 16


def sampled_softmax(positive: tf.Tensor, candidates: tf.Tensor, expected: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
    """Compute -log of an estimate of P(item of the row | user), `[batch]`.

    Args:
        positive: logits of the rows' own items, `[batch]`.
        candidates: logits of the candidates, `[batch, candidates]`.
        expected: how often the item of each candidate is expected among the candidates, `[candidates]`; above 0.
        own: where a candidate is the row's own item, which counts already, `[batch, candidates]`.
    """
    others = tf.where(own, _MASKED, candidates - tf.math.log(expected))
    logits = tf.concat([positive[:, tf.newaxis], others], axis=1)
    # One operation for value and gradient.
    return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.zeros_like(positive, tf.int32), logits)


class SoftmaxDotBias(DotBias):
    """Scores an item for a user as <u, v> / temperature + item bias, where u and v have length 1.

    With several features on a side, the vector of each has length 1, and u or v is their sum. Rows with a label below
    `positive_at` do not count. Until `fold`, the tables are not yet those of the export.

    Args:
        arguments: those of `DotBias`.
        candidates: drawn for each batch.
        softmax: the options.
        share: each item's share of the train rows, float32 `[items]`; None without candidates from the batch.
    """

    def __init__(
        self,
        *arguments: Any,
        candidates: Candidates,
        softmax: SoftmaxConfig,
        share: npt.NDArray[np.float32] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, initial_bias=0.0, **options)
        self.candidates = candidates
        self.append = candidates.append
        self.task = tf.keras.metrics.Mean(name="softmax-crossentropy")
        self._softmax = softmax
        self._positive_at = options["positive_at"]
        self._share = Untracked({} if share is None else {"share": tf.Variable(share, trainable=False)})

    def compute_loss(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """Return the mean loss and, in training, penalty over the positive rows of the batch on all replicas."""
        features, label, weight = inputs if len(inputs) == 3 else (*inputs, None)
        embeddings = self.embedding(dict(features))
        rows = tf.size(label)
        counts = tf.cast(label >= np.float32(self._positive_at), tf.float32)
        if weight is not None:
            counts *= weight
        users, _ = self._side("user", embeddings)
        items, biases = self._side("item", embeddings)
        ids = features[self.candidates.feature]
        # The candidates from the batch are the items of its first rows; the order of rows is random.
        taken = tf.concat([tf.range(rows, tf.size(ids)), tf.range(tf.minimum(self._softmax.in_batch, rows))], axis=0)
        positive = tf.reduce_sum(users * items[:rows], axis=1) + biases[:rows]
        logits = tf.matmul(users, tf.gather(items, taken), transpose_b=True) + tf.gather(biases, taken)
        candidates = tf.gather(ids, taken)
        own = ids[:rows, tf.newaxis] == candidates
        losses = sampled_softmax(positive, logits, self._expected(candidates), own | ~self._valid(taken, counts, rows))
        self.task.update_state(losses, sample_weight=counts)
        loss = tf.reduce_sum(counts * losses)
        if training:
            of_rows = {name: embedding[:rows] for name, embedding in embeddings.items()}
            loss += self.penalty({name: of[:rows] for name, of in features.items()}, of_rows, counts)
            # Keras warns of variables without a gradient.
            loss += 0.0 * self.bias
        return loss / tf.maximum(over_replicas(tf.reduce_sum(counts)), 1.0)

    def fold(self, data: Dataset) -> None:
        """Put length, temperature and log-sum into the tables and the bias.

        An OOV bucket without train rows gets the mean of the rarest tenth of the vocabulary. The global bias is minus
        the mean log-sum over all items for a sample of train rows, so that exp(logit) is about P(item | user).
        """
        without_rows = untrained(data)
        for name, table in self.tables.items():
            folded = self.folded(name)
            if name in without_rows:
                feature = data.manifest.features[name]
                size = feature.vocabulary_size or 0
                rarest = folded[size - max(int(_RAREST * size), 1) : size]
                buckets = tf.repeat(tf.reduce_mean(rarest, axis=0, keepdims=True), feature.num_oov_buckets, axis=0)
                folded = tf.concat([folded[:size], buckets if size else folded[size:]], axis=0)
            table.assign(folded)
        self.bias.assign(-self._log_sum(data))

    def folded(self, name: str) -> tf.Tensor:
        """Return the table with length and temperature put in; see `DotBias.folded`."""
        vectors, biases = self._vectors(name, self.tables[name])
        return tf.concat([vectors, biases[:, tf.newaxis]], axis=1)

    def _vectors(self, name: str, embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the vectors `[rows, dim - 1]` and biases `[rows]` that embeddings `[rows, dim]` stand for."""
        vectors, biases = embeddings[:, :-1], embeddings[:, -1]
        if self._softmax.normalize:
            vectors = tf.math.l2_normalize(vectors, axis=1)
        if self.sides[name] == "user":
            # A user's bias would raise all items equally.
            return vectors / self._softmax.temperature, tf.zeros_like(biases)
        return vectors, biases if self._softmax.item_bias else tf.zeros_like(biases)

    def _side(self, side: str, embeddings: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        parts = [self._vectors(name, embeddings[name]) for name in sorted(self.sides) if self.sides[name] == side]
        vectors, biases = zip(*parts, strict=True)
        return tf.add_n(vectors), tf.add_n(biases)

    def _expected(self, candidates: tf.Tensor) -> tf.Tensor:
        """Return how often each candidate's item is expected among the candidates, `[candidates]`."""
        expected = tf.fill(tf.shape(candidates), np.float32(self.candidates.number / self.candidates.num_items))
        if self._softmax.in_batch:
            expected += self._softmax.in_batch * tf.gather(self._share.values["share"], candidates)
        return expected

    def _valid(self, taken: tf.Tensor, counts: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Return which candidates, by position in the batch with its appended ids, are not from filled-up rows."""
        return (taken >= rows) | (tf.gather(counts, tf.minimum(taken, rows - 1)) > 0)

    def _log_sum(self, data: Dataset) -> tf.Tensor:
        """Return the mean over a sample of train rows of log of the sum over all items of exp(logit), scalar."""
        features, _ = next(iter(read_batches(data, "train", _ROWS_OF_BIAS)))
        users = tf.add_n(
            [tf.gather(self.tables[name], ids) for name, ids in features.items() if self.sides[name] == "user"]
        )
        log_sums = tf.fill([tf.shape(users)[0]], -np.inf)
        for first in range(0, self.candidates.num_items, _ITEMS_AT_A_TIME):
            rows = np.arange(first, min(first + _ITEMS_AT_A_TIME, self.candidates.num_items))
            items = tf.gather(self.tables[self.candidates.feature], rows)
            for name, of_items in self.candidates.others.items():
                items += tf.gather(self.tables[name], of_items[rows])
            logits = tf.matmul(users[:, :-1], items[:, :-1], transpose_b=True) + items[:, -1]
            log_sums = tf.math.reduce_logsumexp(tf.stack([log_sums, tf.reduce_logsumexp(logits, axis=1)]), axis=0)
        return tf.reduce_mean(log_sums)
