"""Makes the list of items that an export can recommend, with the vector of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipeline.manifest import DotbiasError
from trainer.data.dataset import Dataset
from trainer.data.dataset import side_features as side_features
from trainer.data.lookup import TokenLookup
from trainer.data.lookup import Tokens as Tokens
from trainer.data.lookup import read_tokens as read_tokens
from trainer.data.sides import Indices as Indices
from trainer.data.sides import side_rows as side_rows

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Catalogue:
    """Lists items, in the order that breaks ties: that of the vocabulary, or of the file of hashed ids.

    Attributes:
        feature: the first feature of the item side; its tokens name the items.
        tokens: int64 `[items]`, or bytes in an object array.
        vectors: float32 `[items, dim]`, the bias last; None if they are the first rows of the feature's table.
        allowed: positions of the items that may be recommended, ascending; None: all.
    """

    feature: str
    tokens: Tokens
    vectors: Vectors | None
    allowed: Indices | None = None


def catalogue(data: Dataset, tables: Mapping[str, Any], listed: Tokens | None = None) -> Catalogue | None:
    """Make the catalogue of a model: its vocabulary of items, or the tokens `listed` if item ids are hashed.

    Returns None if nothing lists the items: their ids are hashed and `listed` is None, or the vocabulary is empty.

    Args:
        data: the dataset, with its shards where item ids are hashed and the item side has several features.
        tables: the embedding tables by feature, `[rows, dim]`.
        listed: for hashed ids, the items.
    """
    features = side_features(data, "item")
    first = data.manifest.features[features[0]]
    if first.encoding == "vocabulary":
        if not first.vocabulary_size:
            return None
        assert first.vocabulary_path is not None
        tokens = read_tokens(data.file(first.vocabulary_path), first.token_dtype)
        if len(features) == 1:
            return Catalogue(features[0], tokens, None)
        rows = np.arange(len(tokens))
    elif listed is None:
        return None
    else:
        tokens = listed
        rows = TokenLookup(data, features[0])(tf.constant(tokens)).numpy()
    return Catalogue(features[0], tokens, side_vectors(side_rows(data, "item"), tables, rows))


def allow(items: Catalogue, data: Dataset, listed: Tokens, origin: str) -> tuple[Catalogue, int]:
    """Restrict a catalogue to listed tokens; return it and how many of them it does not have.

    Raises:
        DotbiasError: it has none of them; the message names `origin`.
    """
    rows = TokenLookup(data, items.feature)(tf.constant(listed)).numpy()
    allowed = np.unique(rows[rows < len(items.tokens)])
    if not len(allowed):
        raise DotbiasError(
            f"{origin}: none of its {len(listed):,} tokens is in the vocabulary of {items.feature!r}, so there is "
            "nothing to recommend. Check that it holds tokens of that column, one a line."
        )
    return Catalogue(items.feature, items.tokens, items.vectors, allowed), len(listed) - len(allowed)


def side_vectors(rows: Mapping[str, Indices], tables: Mapping[str, Any], of: Indices) -> Vectors:
    """Return the sum over the features in `rows` of the vectors of the ids `of`, `[ids, dim]`."""
    total: Vectors = np.sum([tf.gather(tables[name], rows[name][of]).numpy() for name in sorted(rows)], axis=0)
    return total


def read_list(path: str, dtype: str, flag: str) -> Tokens:
    """Read a list of distinct tokens in the order of the file: one a line; empty lines and repeated tokens are skipped.

    Raises:
        DotbiasError: the file cannot be read, has no token, or one that is not of the type.
    """
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            lines = file.read().splitlines()
    except (tf.errors.OpError, OSError) as error:
        raise DotbiasError(f"{flag}: {path} cannot be read: {error}") from None
    tokens: dict[Any, None] = {}
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        if dtype == "int64":
            try:
                tokens[_int64(line)] = None
            except ValueError:
                raise DotbiasError(
                    f"{flag}: {path}, line {number}: {line.decode(errors='replace')!r} is not an int64, as the ids of "
                    "the model are; write one id a line, without a header."
                ) from None
        else:
            tokens[line] = None
    if not tokens:
        raise DotbiasError(f"{flag}: {path} has no token; write one a line.")
    return np.array(list(tokens), np.int64 if dtype == "int64" else object)


def _int64(text: bytes) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise ValueError
    return number
