"""Lists items in plain TensorFlow operations: the signatures of an export besides the prediction.

`recommend` lists items for users, `recommend_for_items` for someone who chose some items, `similar_items` the items
nearest to an item; `user_vector` and `item_vector` give vectors for an index outside of the model.

A list is ordered by float64 logits (or cosines) rounded to float32, and equal scores by the order of the catalogue, so
that it does not depend on the kernel that multiplied the matrices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainer.data.lookup import TokenLookup
from trainer.model.dot_bias import apply_map
from trainer.output.catalogue import Catalogue

# This many items beyond k get float64 scores too, in case float32 has put an item on the wrong side of place k.
_MORE_CANDIDATES = 16
# The score that fills up a list with fewer than k items; JSON has no infinity.
NO_SCORE = float(np.finfo(np.float32).min)
# The target of the ridge regression for each item given to `recommend_for_items` (its logit above that of the mean
# user), and its weight: a Newton step of logistic regression at probability 1/2 has residual 1/2 and weight 1/4.
_TARGET, _WEIGHT = 2.0, 0.25
_LEAST_VARIANCE = 1e-6
_ROWS_AT_A_TIME = 1 << 18

Answer = dict[str, tf.Tensor]


class Recommender(tf.Module):
    """Holds the catalogue as variables, and computes lists.

    Args:
        items: the catalogue.
        table: of the feature that names items, `[rows, dim]`.
        lookup: finds the rows of that table.
        prior: mean `[dim]` and variance `[dim - 1]` of the users' vectors, from `moments`.
        bias: b, scalar.
        calibration: scale and offset of the map from logit to probability, scalars.
        scratch: a local directory that exists until the model is saved.
    """

    def __init__(
        self,
        items: Catalogue,
        table: tf.Variable,
        lookup: TokenLookup,
        prior: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
        bias: tf.Variable,
        calibration: tuple[tf.Variable, tf.Variable],
        scratch: str,
    ) -> None:
        super().__init__()
        self._size = len(items.tokens)
        self._lookup = lookup
        self._table = table
        self._bias = bias
        self._calibration = calibration
        self.tokens = _constant(items.tokens)
        self.vectors = None if items.vectors is None else _constant(items.vectors)
        vectors = table[: self._size].numpy() if items.vectors is None else items.vectors
        lengths = np.linalg.norm(vectors[:, :-1].astype(np.float64), axis=1)
        # 0 for a vector of zeros, so that its cosine with all others is 0.
        self.inverse_lengths = _constant(np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0))
        self.user_mean = _constant(prior[0].astype(np.float32))
        self.user_precision = _constant(1 / np.maximum(prior[1], _LEAST_VARIANCE))
        self.allowed = None if items.allowed is None else _constant(items.allowed)
        if items.allowed is not None:
            self.allowed_vectors = _constant(vectors[items.allowed])
            at = np.full(self._size, -1)
            at[items.allowed] = np.arange(len(items.allowed))
            self.allowed_at = _constant(at)
        self.listed = None if lookup.vocabulary is not None else _table_of(items.tokens, f"{scratch}/items.txt")

    def recommend(self, user: tf.Tensor, exclude: tf.Tensor, k: tf.Tensor) -> Answer:
        """List the items with the highest logits for users.

        Args:
            user: vectors `[batch, dim]`, the bias last.
            exclude: tokens `[batch, m]` that are not to be listed; tokens of no item are ignored.
            k: scalar; length of the lists, at most the number of items.
        """
        query = tf.concat([user[:, :-1], tf.ones_like(user[:, -1:])], axis=1)
        offset = tf.cast(user[:, -1], tf.float64) + tf.cast(self._bias, tf.float64)
        items, scores = self._lists(query, offset, self._positions(exclude), k)
        return {"items": items, "scores": scores, "probabilities": self._probabilities(scores)}

    def recommend_for_items(self, items: tf.Tensor, exclude: tf.Tensor, k: tf.Tensor) -> Answer:
        """List items for users who are known only by some items `[batch, m]`, padded with tokens that are no item.

        A user's vector is the mean user's plus x, where x solves a ridge regression on the vectors w of the items:
        it minimizes sum(weight * (<w, x> - target)^2) + sum(x^2 / variance), with the variance of users' vectors in
        each unit. Y. Hu, Y. Koren and C. Volinsky fold users in like this ("Collaborative Filtering for Implicit
        Feedback Datasets", 2008). The items themselves are not listed.
        """
        given = self._positions(items)
        known = tf.cast(given >= 0, tf.float64)[:, :, tf.newaxis]
        w = tf.cast(tf.gather(self._all_vectors(), tf.maximum(given, 0))[:, :, :-1], tf.float64) * known
        precision = tf.linalg.diag(self.user_precision)
        x = tf.linalg.solve(
            _WEIGHT * tf.matmul(w, w, transpose_a=True) + precision,
            _WEIGHT * _TARGET * tf.reduce_sum(w, axis=1)[:, :, tf.newaxis],
        )[:, :, 0]
        user = self.user_mean + tf.pad(tf.cast(x, tf.float32), [[0, 0], [0, 1]])
        return self.recommend(user, tf.concat([items, exclude], axis=1), k)

    def similar_items(self, item: tf.Tensor, k: tf.Tensor) -> Answer:
        """List the items nearest to an item, by the cosine of vectors without bias; an unknown token has an empty list.

        Args:
            item: tokens `[batch]`.
            k: scalar; length of the lists.
        """
        position = self._positions(item)
        at = tf.maximum(position, 0)
        inverse = tf.gather(self.inverse_lengths, at)
        # The bias of the other item does not count.
        query = tf.pad(tf.gather(self._all_vectors(), at)[:, :-1], [[0, 0], [0, 1]])
        others = self.inverse_lengths if self.allowed is None else tf.gather(self.inverse_lengths, self.allowed)
        items, scores = self._lists(
            query, tf.zeros_like(inverse), position[:, tf.newaxis], k, (inverse, others), position >= 0
        )
        return {"items": items, "scores": scores}

    def item_vector(self, item: tf.Tensor) -> Answer:
        """Return (v[:-1], v[-1], 1), `[batch, dim + 1]`; zeros for an unknown token."""
        position = self._positions(item)
        v = tf.gather(self._all_vectors(), tf.maximum(position, 0))
        vector = tf.concat([v, tf.ones_like(v[:, -1:])], axis=1)
        return {"vector": tf.where((position >= 0)[:, tf.newaxis], vector, tf.zeros_like(vector))}

    def _all_vectors(self) -> tf.Tensor:
        # Rows from 0 on share the table's memory.
        return self._table[: self._size] if self.vectors is None else self.vectors

    def _positions(self, tokens: tf.Tensor) -> tf.Tensor:
        """Return the positions of tokens in the catalogue, int64, -1 for others."""
        if self.listed is not None:
            return self.listed.lookup(tokens)
        rows = self._lookup(tokens)
        return tf.where(rows < self._size, rows, -1)

    def _probabilities(self, scores: tf.Tensor) -> tf.Tensor:
        probabilities = apply_map(scores, *self._calibration)
        return tf.where(scores > NO_SCORE, probabilities, tf.zeros_like(probabilities))

    def _lists(
        self,
        query: tf.Tensor,
        offset: tf.Tensor,
        excluded: tf.Tensor,
        k: tf.Tensor,
        factors: tuple[tf.Tensor, tf.Tensor] | None = None,
        has_list: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the tokens and scores of the best items, `[batch, k]` each, best first.

        A score is <query, v> + offset, or with `factors` <query, v> times a factor of the row and one of the item.

        Args:
            query: `[batch, dim]`.
            offset: float64 `[batch]`.
            excluded: positions in the catalogue `[batch, m]`, -1 for none.
            k: scalar; cut to [0, items].
            factors: float64 `[batch]` and `[items]`.
            has_list: `[batch]`; False for a row whose list is empty.
        """
        vectors = self._all_vectors() if self.allowed is None else self.allowed_vectors
        if self.allowed is not None:
            excluded = tf.where(
                excluded < 0, tf.cast(-1, tf.int64), tf.gather(self.allowed_at, tf.maximum(excluded, 0))
            )
        size = tf.shape(vectors)[0]
        k = tf.clip_by_value(k, 0, size)
        rough = tf.matmul(query, vectors, transpose_b=True)
        if factors is not None:
            rough *= tf.cast(factors[1], tf.float32)
        rough = _without(rough, excluded)
        kept, at = tf.math.top_k(rough, tf.minimum(k + _MORE_CANDIDATES, size))
        # Equal scores are taken in the order of the catalogue.
        order = tf.argsort(at, axis=1)
        kept, at = tf.gather(kept, order, batch_dims=1), tf.gather(at, order, batch_dims=1)
        exact = tf.reduce_sum(
            tf.cast(query, tf.float64)[:, tf.newaxis] * tf.cast(tf.gather(vectors, at), tf.float64), axis=2
        )
        if factors is not None:
            exact *= factors[0][:, tf.newaxis] * tf.gather(factors[1], at)
        exact = tf.cast(exact + offset[:, tf.newaxis], tf.float32)
        listed = kept > -np.inf if has_list is None else (kept > -np.inf) & has_list[:, tf.newaxis]
        scores, best = tf.math.top_k(tf.where(listed, exact, NO_SCORE), k)
        at = tf.gather(at, best, batch_dims=1)
        positions = at if self.allowed is None else tf.gather(self.allowed, at)
        tokens = tf.gather(self.tokens, positions)
        nothing = tf.constant("" if tokens.dtype == tf.string else -1, tokens.dtype)
        return tf.where(scores > NO_SCORE, tokens, nothing), scores


def moments(tables: Sequence[tuple[Any, int]]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the mean `[dim]` and variance `[dim - 1]` of sums of vectors, one from each table, drawn independently.

    Args:
        tables: tables of the user side, and how many rows of each are ids and not OOV buckets; 0: take all rows.
    """
    mean, variance = [], []
    for table, known in tables:
        rows = known or int(table.shape[0])
        first = second = np.zeros(table.shape[1])
        for start in range(0, rows, _ROWS_AT_A_TIME):
            part = table[start : min(start + _ROWS_AT_A_TIME, rows)].numpy().astype(np.float64)
            first, second = first + part.sum(axis=0), second + (part**2).sum(axis=0)
        mean.append(first / rows)
        variance.append((second / rows - (first / rows) ** 2)[:-1])
    return np.sum(mean, axis=0), np.sum(variance, axis=0)


def user_vector(user: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Return (u[:-1], 1, u[-1] + b), `[batch, dim + 1]`: its inner product with an item's vector is the logit."""
    return tf.concat([user[:, :-1], tf.ones_like(user[:, -1:]), user[:, -1:] + bias], axis=1)


def recommender_signatures(recommender: Recommender, side_vector: Any, users: Mapping[str, tf.TensorSpec]) -> Any:
    """Return the functions and input signatures of the lists, by name.

    Args:
        recommender: computes them.
        side_vector: (tokens by feature) -> vectors `[batch, dim]` of the user side.
        users: the features of the user side.
    """
    dtype = recommender.tokens.dtype
    k = tf.TensorSpec([], tf.int32, name="k")
    exclude = tf.TensorSpec([None, None], dtype, name="exclude")
    item = tf.TensorSpec([None], dtype, name="item")

    def recommend(inputs: Mapping[str, tf.Tensor]) -> Answer:
        user = side_vector({name: inputs[name] for name in users})
        return recommender.recommend(user, inputs["exclude"], inputs["k"])

    return {
        "recommend": (recommend, {**users, "exclude": exclude, "k": k}),
        "recommend_for_items": (
            lambda inputs: recommender.recommend_for_items(inputs["items"], inputs["exclude"], inputs["k"]),
            {"items": tf.TensorSpec([None, None], dtype, name="items"), "exclude": exclude, "k": k},
        ),
        "similar_items": (
            lambda inputs: recommender.similar_items(inputs["item"], inputs["k"]),
            {"item": item, "k": k},
        ),
        "item_vector": (lambda inputs: recommender.item_vector(inputs["item"]), {"item": item}),
    }


def _constant(values: Any) -> tf.Variable:
    """Keep an array as a variable: a constant in the graph could have 2 GiB at most."""
    return tf.Variable(values, trainable=False)


def _table_of(tokens: npt.NDArray[Any], path: str) -> tf.lookup.StaticHashTable:
    """Make a table from token to position; its file, written to `path`, becomes an asset of the SavedModel."""
    with open(path, "wb") as file:
        file.writelines(b"%b\n" % (token if isinstance(token, bytes) else b"%d" % token) for token in tokens)
    key_dtype = tf.as_dtype(tf.constant(tokens[:1]).dtype)
    initializer = tf.lookup.TextFileInitializer(
        path,
        key_dtype=key_dtype,
        key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
        value_dtype=tf.int64,
        value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    return tf.lookup.StaticHashTable(initializer, default_value=-1)


def _without(scores: tf.Tensor, excluded: tf.Tensor) -> tf.Tensor:
    """Set the scores `[batch, items]` at the positions `excluded` `[batch, m]` to minus infinity; -1 is none."""
    where = tf.where(excluded >= 0)
    at = tf.stack([where[:, 0], tf.gather_nd(excluded, where)], axis=1)
    return tf.tensor_scatter_nd_update(scores, at, tf.fill([tf.shape(at)[0]], np.float32(-np.inf)))
