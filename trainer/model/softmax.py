"""Defines the objective `softmax`: which of all items a user chooses, learned from positive rows alone.

The sum over all items is estimated from candidates, each divided by the number of times that it is expected among them
(Y. Bengio and J.-S. Senecal, "Adaptive importance sampling to accelerate training of a neural probabilistic language
model", 2008; the "logQ correction"). `tfrs.tasks.Retrieval` always compares with the items of the whole batch, and has
neither uniform candidates nor an item bias.
"""

from __future__ import annotations

import itertools
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
# Keeps the loss, of at most 85, finite; the gradient needs no logarithm.
_SMALLEST_SHARE = 1e-37
# A shorter vector is scaled as one of this length, so that the gradient stays finite.
_SHORTEST = 1e-6


def sampled_softmax(
    users: tf.Tensor, own: tf.Tensor, candidates: tf.Tensor, masked: tf.Tensor, parts: int = 1
) -> tf.Tensor:
    """Compute -log of an estimate of P(item of the row | user), `[batch]`.

    A logit is <user, item>. Value and gradient are written out: the softmax is computed once, and the weights of rows
    go into the factors of the products instead of into a matrix `[batch, candidates]`.

    Args:
        users: `[batch, dim]`.
        own: the rows' own items, `[batch, dim]`.
        candidates: `[candidates, dim]`; their logits are already less log of how often each is expected to be drawn.
        masked: the position of the one candidate that does not count for a row, int32 `[batch]`; -1: all count.
        parts: into how many parts the rows are split; one part runs on one thread.
    """
    # The last column is that of the rows' own items.
    candidates = tf.pad(candidates, [[0, 1], [0, 0]])
    if parts == 1:
        return _sampled_softmax(users, own, candidates, masked)
    bounds = [tf.shape(users)[0] * part // parts for part in range(parts + 1)]
    losses = [
        _sampled_softmax(users[start:end], own[start:end], candidates, masked[start:end])
        for start, end in itertools.pairwise(bounds)
    ]
    return tf.concat(losses, axis=0)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _sampled_softmax(users: tf.Tensor, own: tf.Tensor, candidates: tf.Tensor, masked: tf.Tensor) -> Any:
    rows = tf.range(tf.shape(users)[0])
    last = tf.fill(tf.shape(rows), tf.shape(candidates)[0] - 1)
    logits = tf.matmul(users, candidates, transpose_b=True)
    # Two scatters of a number a row, into the same memory, are cheaper than masks of the whole matrix.
    at = tf.stack([rows, tf.where(masked < 0, last, masked)], axis=1)
    logits = tf.tensor_scatter_nd_update(logits, at, tf.fill(tf.shape(rows), _MASKED))
    positive = tf.reduce_sum(users * own, axis=1)
    logits = tf.tensor_scatter_nd_update(logits, tf.stack([rows, last], axis=1), positive)
    share = tf.nn.softmax(logits)
    of_own = share[:, -1]

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, None]:
        by_row = upstream[:, tf.newaxis]
        missing = (upstream * (1 - of_own))[:, tf.newaxis]
        return (
            by_row * tf.matmul(share, candidates) - missing * own,
            -missing * users,
            tf.matmul(share, by_row * users, transpose_a=True),
            None,
        )

    return -tf.math.log(tf.maximum(of_own, _SMALLEST_SHARE)), gradient


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _permuted(values: tf.Tensor, order: tf.Tensor) -> Any:
    """Gather all rows in another order; TensorFlow's gradient would have shapes that a TPU does not know."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return tf.gather(upstream, tf.argsort(order)), None

    return tf.gather(values, order), gradient


def position_of(ids: tf.Tensor, among: tf.Tensor) -> tf.Tensor:
    """Return where each of `ids` comes first in `among`, ascending, int32 `[ids]`; -1 where it does not."""
    at = tf.minimum(tf.searchsorted(among, ids), tf.size(among) - 1)
    return tf.where(tf.gather(among, at) == ids, at, -1)


def scaled_vectors(embeddings: tf.Tensor, scale: float, last: float | None) -> tf.Tensor:
    """Scale the vectors in embeddings `[rows, dim]` to the length `scale`; the last unit stays, or becomes `last`."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def scaled(embeddings: tf.Tensor) -> Any:
        bias_unit = tf.one_hot([embeddings.shape[1] - 1], embeddings.shape[1])
        vectors = embeddings * (1 - bias_unit)
        squared = tf.reduce_sum(tf.square(vectors), axis=1, keepdims=True)
        factor = scale * tf.math.rsqrt(tf.maximum(squared, _SHORTEST**2))
        biases = embeddings * bias_unit if last is None else last * bias_unit

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            along = tf.reduce_sum(upstream * vectors, axis=1, keepdims=True) / tf.maximum(squared, _SHORTEST**2)
            of_vectors = factor * (upstream - along * vectors) * (1 - bias_unit)
            return of_vectors + upstream * bias_unit if last is None else of_vectors

        return factor * vectors + biases, gradient

    return scaled(embeddings)


class SoftmaxDotBias(DotBias):
    """Scores an item for a user as <u, v> / temperature + item bias, where u and v have length 1.

    With several features on a side, the vector of each has length 1, and u or v is their sum. Rows with a label below
    `positive_at` do not count. Until `fold`, the tables are not yet those of the export.

    Args:
        arguments: those of `DotBias`.
        candidates: drawn for each batch.
        softmax: the options.
        share: each item's share of the train rows, float32 `[items]`; None without candidates from the batch.
        parts: into how many parts a step splits the rows of a batch, see `sampled_softmax`.
    """

    collected = ()

    def __init__(
        self,
        *arguments: Any,
        candidates: Candidates,
        softmax: SoftmaxConfig,
        share: npt.NDArray[np.float32] | None = None,
        parts: int = 1,
        **options: Any,
    ) -> None:
        if softmax.temperature is None:
            raise ValueError("`temperature` should be known here; see `loop.defaults.with_automatic_values`.")
        super().__init__(*arguments, initial_bias=0.0, **options)
        self.candidates = candidates
        self.append = candidates.append
        self.task = tf.keras.metrics.Mean(name="softmax-crossentropy")
        self._softmax = softmax
        self._scale = 1 / softmax.temperature
        self._positive_at = options["positive_at"]
        self._parts = parts
        self._share = Untracked({} if share is None else {"share": tf.Variable(share, trainable=False)})

    def compute_loss(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """Return the mean loss and, in training, penalty over the positive rows of the batch on all replicas."""
        features, label, weight = inputs if len(inputs) == 3 else (*inputs, None)
        embeddings = self.embedding(dict(features))
        rows = tf.size(label)
        counts = tf.cast(label >= np.float32(self._positive_at), tf.float32)
        if weight is not None:
            counts *= weight
        users, items = self._side("user", embeddings), self._side("item", embeddings)
        ids = features[self.candidates.feature]
        drawn, candidates = self._candidates(ids, items, counts, rows)
        losses = sampled_softmax(users, items[:rows], candidates, position_of(ids[:rows], drawn), self._parts)
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
        # A user's bias would raise all items equally.
        return self._scaled(name, self.tables[name], user_bias=0.0)

    def _scaled(self, name: str, embeddings: tf.Tensor, user_bias: float) -> tf.Tensor:
        """Return what embeddings `[rows, dim]` stand for, the same shape: vectors and, as the last unit, biases."""
        is_user = self.sides[name] == "user"
        scale = self._scale if is_user else 1.0
        last = user_bias if is_user else None if self._softmax.item_bias else 0.0
        if self._softmax.normalize:
            return scaled_vectors(embeddings, scale, last)
        bias_unit = tf.one_hot([embeddings.shape[1] - 1], embeddings.shape[1])
        return embeddings * (scale * (1 - bias_unit)) + bias_unit * (embeddings if last is None else last)

    def _side(self, side: str, embeddings: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Sum over the features of a side, `[rows, dim]`; the last unit of users is 1, so that items add their bias."""
        names = sorted(name for name in self.sides if self.sides[name] == side)
        return tf.add_n([self._scaled(name, embeddings[name], float(name == names[0])) for name in names])

    def _candidates(
        self, ids: tf.Tensor, items: tf.Tensor, counts: tf.Tensor, rows: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the candidates of a batch: items ascending `[candidates]`, and vectors `[candidates, dim]`.

        The bias unit, where users have a 1, has the logarithm of how often an item was drawn and how often that is
        expected. An item that was drawn several times counts where it comes first.

        Args:
            ids: items of the rows, and after them those that were drawn, ascending.
            items: their vectors.
            counts: weights of the rows; one of 0 fills up the batch or is negative, and its item is no candidate.
            rows: number of rows.
        """
        drawn, vectors = ids[rows:], items[rows:]
        expected = tf.fill(tf.shape(drawn), np.float32(self.candidates.number / self.candidates.num_items))
        if self._softmax.in_batch:
            # The candidates from the batch are the items of its first rows; the order of rows is random.
            number = tf.minimum(self._softmax.in_batch, rows)
            none = self.candidates.num_items
            is_candidate = counts[:number] > 0
            drawn = tf.concat([drawn, tf.where(is_candidate, ids[:number], none)], axis=0)
            order = tf.argsort(drawn)
            drawn = tf.gather(drawn, order)
            vectors = _permuted(tf.concat([vectors, items[:number]], axis=0), order)
            share = tf.gather(self._share.values["share"], tf.minimum(drawn, none - 1))
            expected = expected[0] + tf.reduce_sum(tf.cast(is_candidate, tf.float32)) * share
            expected = tf.where(drawn < none, expected, np.inf)
        first, end = (tf.searchsorted(drawn, drawn, side=side) for side in ("left", "right"))
        times = tf.where(first == tf.range(tf.size(drawn)), end - first, 0)
        offset = tf.maximum(tf.math.log(tf.cast(times, tf.float32) / expected), _MASKED)
        return drawn, vectors + tf.pad(offset[:, tf.newaxis], [[0, 0], [vectors.shape[1] - 1, 0]])

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
