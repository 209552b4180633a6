"""Lists items in plain TensorFlow operations: the signatures of an export besides the prediction.

`recommend` lists items for users, `recommend_for_items` for someone who chose some items, `similar_items` the items
nearest to an item; `user_vector` and `item_vector` give vectors for an index outside of the model.

A list is ordered by float64 logits (or cosines) rounded to float32, and equal scores by the order of the catalogue. A
float32 product only chooses whose scores are computed: all that rounding could have kept from a list. So a list does
not depend on the kernel that multiplied the matrices, and is the one of `dotbias.recommending.blocks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainer.data.lookup import TokenLookup
from trainer.model.dot_bias import apply_map
from trainer.output.catalogue import Catalogue
from trainer.output.fold_in import FoldIn

# Items beyond k whose float64 scores are computed at once; more if rounding could have moved more across the end.
_MORE_CANDIDATES = 16
# Rounding of float32, relative.
_UNIT = 2.0**-24
# Scores of a block of items, which bounds the memory; and the fewest items of one, for large batches.
_SCORES_AT_A_TIME, _FEWEST_ITEMS_AT_A_TIME = 1 << 20, 1 << 13
_ROWS_AT_A_TIME = 1 << 16
# Stands where a list has no more items; JSON has no infinity.
NO_SCORE = float(np.finfo(np.float32).min)

Answer = dict[str, tf.Tensor]


class Recommender(tf.Module):
    """Holds the catalogue as variables, and computes lists.

    Args:
        items: the catalogue.
        table: of the feature that names items, `[rows, dim]`.
        lookup: finds the rows of that table.
        users: tables of the user side, as `FoldIn.of` takes them.
        bias: b, scalar.
        calibration: scale and offset of the map from logit to probability, scalars.
        scratch: a local directory that exists until the model is saved.
    """

    def __init__(
        self,
        items: Catalogue,
        table: tf.Variable,
        lookup: TokenLookup,
        users: Sequence[tuple[Any, int]],
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

        def vectors(start: int, end: int) -> npt.NDArray[np.float32]:
            part: npt.NDArray[np.float32] = self._all_vectors()[start : min(end, self._size)].numpy()
            return part

        lengths, longest = _lengths(vectors, self._size)
        # 0 for a vector of zeros, whose cosine with all others is 0 then.
        self.inverse_lengths = _constant(np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0))
        self.longest = _constant(longest)
        fold_in = FoldIn.of(users, vectors)
        self.user_mean = _constant(fold_in.mean.astype(np.float32))
        self.fold_in_center = _constant(fold_in.center)
        self.fold_in_basis = _constant(fold_in.basis)
        self.fold_in_curvature = _constant(fold_in.curvature)
        self.allowed = None if items.allowed is None else _constant(items.allowed)
        if items.allowed is not None:
            self.allowed_vectors = _constant(tf.gather(self._all_vectors(), items.allowed))
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

        `fold_in` says how their vectors are found. The items themselves are not listed.
        """
        given = self._positions(items)
        known = tf.cast(given >= 0, tf.float64)
        w = tf.cast(tf.gather(self._all_vectors(), tf.maximum(given, 0))[:, :, :-1], tf.float64)
        number = tf.reduce_sum(known, axis=1, keepdims=True)
        surplus = tf.reduce_sum(w * known[:, :, tf.newaxis], axis=1) - number * self.fold_in_center
        x = tf.matmul(surplus, self.fold_in_basis) / (1 + number * self.fold_in_curvature)
        x = tf.matmul(x, self.fold_in_basis, transpose_b=True)
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
        size, rows = tf.shape(vectors)[0], tf.shape(query)[0]
        k = tf.clip_by_value(k, 0, size)
        block = tf.maximum(_SCORES_AT_A_TIME // tf.maximum(rows, 1), _FEWEST_ITEMS_AT_A_TIME)
        # Cosines are at most 1, so only the length of the query counts.
        longest = self.longest if factors is None else tf.ones_like(self.longest)
        largest = tf.norm(tf.cast(query, tf.float64), axis=1) * longest
        # Twice the error of a float32 product and of rounding a score.
        error = tf.cast(2 * _UNIT * ((query.shape[1] + 4) * largest + tf.abs(offset)), tf.float32)

        def add_block(start: tf.Tensor, scores: tf.Tensor, at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            end = tf.minimum(start + block, size)
            of_block = vectors[start:end]
            rough = tf.matmul(query, of_block, transpose_b=True)
            if factors is not None:
                rough *= tf.cast(factors[1][start:end], tf.float32)
            rough = _without(
                rough, tf.where(excluded < tf.cast(end, tf.int64), excluded - tf.cast(start, tf.int64), -1)
            )
            near = _highest(rough, k, error)
            exact = tf.reduce_sum(
                tf.cast(query, tf.float64)[:, tf.newaxis] * tf.cast(tf.gather(of_block, near), tf.float64), axis=2
            )
            if factors is not None:
                exact *= factors[0][:, tf.newaxis] * tf.gather(factors[1], start + near)
            exact = tf.cast(exact + offset[:, tf.newaxis], tf.float32)
            exact = tf.where(tf.gather(rough, near, batch_dims=1) > -np.inf, exact, NO_SCORE)
            # Items of earlier blocks come first, so equal scores stay in the order of the catalogue.
            scores, best = tf.math.top_k(tf.concat([scores, exact], axis=1), k)
            return end, scores, tf.gather(tf.concat([at, start + near], axis=1), best, batch_dims=1)

        _, scores, at = tf.while_loop(
            lambda start, *_: start < size,
            add_block,
            (tf.constant(0), tf.fill([rows, k], NO_SCORE), tf.zeros([rows, k], tf.int32)),
            (tf.TensorShape([]), tf.TensorShape([None, None]), tf.TensorShape([None, None])),
            # Two blocks at once would take twice the memory.
            parallel_iterations=1,
        )
        if has_list is not None:
            scores = tf.where(has_list[:, tf.newaxis], scores, NO_SCORE)
        positions = at if self.allowed is None else tf.gather(self.allowed, at)
        tokens = tf.gather(self.tokens, positions)
        nothing = tf.constant("" if tokens.dtype == tf.string else -1, tokens.dtype)
        return tf.where(scores > NO_SCORE, tokens, nothing), scores


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


def _lengths(
    vectors: Callable[[int, int], npt.NDArray[np.float32]], size: int
) -> tuple[npt.NDArray[np.float64], np.float64]:
    """Return the lengths of vectors without the bias, `[size]`, and that of the longest with it."""
    lengths, longest = np.empty(size), np.float64(0)
    for start in range(0, size, _ROWS_AT_A_TIME):
        part = vectors(start, start + _ROWS_AT_A_TIME).astype(np.float64)
        squares = (part[:, :-1] ** 2).sum(axis=1)
        lengths[start : start + len(part)] = np.sqrt(squares)
        longest = max(longest, np.sqrt(np.max(squares + part[:, -1] ** 2)))
    return lengths, longest


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


def _highest(rough: tf.Tensor, k: tf.Tensor, error: tf.Tensor) -> tf.Tensor:
    """Return the columns of all scores that may be among the `k` highest of their row, ascending, `[batch, some]`.

    Args:
        rough: scores `[batch, items]`.
        k: scalar.
        error: by which the order of two scores may be wrong, `[batch]`.
    """
    size = tf.shape(rough)[1]
    last = tf.clip_by_value(k, 1, size) - 1

    def is_cut(number: tf.Tensor, kept: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        near = (kept[:, -1] >= kept[:, last] - error) & (kept[:, -1] > -np.inf)
        return (number < size) & tf.reduce_any(near)

    def more(number: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        number = tf.minimum(number * 4, size)
        return number, *tf.math.top_k(rough, number)

    number = tf.minimum(k + _MORE_CANDIDATES, size)
    any_shape = tf.TensorShape([None, None])
    _, _, at = tf.while_loop(
        is_cut, more, (number, *tf.math.top_k(rough, number)), (tf.TensorShape([]), any_shape, any_shape)
    )
    return tf.sort(at, axis=1)


def _without(scores: tf.Tensor, excluded: tf.Tensor) -> tf.Tensor:
    """Set the scores `[batch, items]` at the positions `excluded` `[batch, m]` to minus infinity; -1 is none."""
    where = tf.where(excluded >= 0)
    at = tf.stack([where[:, 0], tf.gather_nd(excluded, where)], axis=1)
    return tf.tensor_scatter_nd_update(scores, at, tf.fill([tf.shape(at)[0]], np.float32(-np.inf)))
