"""Makes the list of items that an export recommends from, and the vector of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipeline.manifest import DotbiasError, Side
from trainer.data.dataset import Dataset
from trainer.data.lookup import TokenLookup
from trainer.data.reader import read_batches

_ROWS_AT_A_TIME = 1 << 16
# Combinations that wait before equal ones are merged.
_COMBINATIONS_IN_MEMORY = 1 << 22

Tokens = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
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


def side_features(data: Dataset, side: Side) -> list[str]:
    """Return the features of a side in the order of the configuration; the first names users, or items."""
    return [name for name, of_feature in data.sides.items() if of_feature == side]


def catalogue(data: Dataset, tables: Mapping[str, Any], listed: Tokens | None = None) -> Catalogue | None:
    """Make the catalogue of a model: its vocabulary of items, or the tokens `listed` if item ids are hashed.

    Returns None if nothing lists the items: their ids are hashed and `listed` is None, or the vocabulary is empty.

    Args:
        data: the dataset, with its shards where the item side has several features.
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


def side_rows(data: Dataset, side: Side) -> dict[str, Indices]:
    """Return the table rows of all features of a side for each row of the first feature's table, `[rows]` each.

    With several features, they are the combination that most train rows with that id have; of equally frequent ones,
    that with the lowest rows, so the most frequent tokens. An id without train rows gets the first OOV bucket of the
    other features.
    """
    features = side_features(data, side)
    first, others = features[0], features[1:]
    found = {first: np.arange(data.table_rows[first])}
    if not others:
        return found
    batches = read_batches(data, "train", _ROWS_AT_A_TIME)
    combinations, counts = _count_rows(np.stack([f[name].numpy() for name in features], axis=1) for f, _ in batches)
    # The most frequent first; the sort is stable, so ties stay in the order of the rows.
    order = np.lexsort((-counts, combinations[:, 0]))
    best = combinations[order]
    best = best[np.diff(best[:, 0], prepend=-1) != 0]
    for column, name in enumerate(others, start=1):
        found[name] = np.full(data.table_rows[first], data.manifest.features[name].vocabulary_size or 0)
        found[name][best[:, 0]] = best[:, column]
    return found


def side_vectors(rows: Mapping[str, Indices], tables: Mapping[str, Any], of: Indices) -> Vectors:
    """Return the sum over the features in `rows` of the vectors of the ids `of`, `[ids, dim]`."""
    total: Vectors = np.sum([tf.gather(tables[name], rows[name][of]).numpy() for name in sorted(rows)], axis=0)
    return total


def _count_rows(batches: Iterable[npt.NDArray[np.int32]]) -> tuple[npt.NDArray[np.int32], Indices]:
    """Return the distinct rows of arrays `[rows, columns]`, sorted, and how often each occurs."""
    parts: list[npt.NDArray[np.int32]] = []
    counts: list[Indices] = []
    waiting, limit = 0, _COMBINATIONS_IN_MEMORY

    def merge() -> None:
        nonlocal parts, counts, waiting, limit
        rows = np.concatenate(parts)
        order = np.lexsort(rows.T[::-1])
        rows = rows[order]
        starts = np.flatnonzero(np.append(True, (np.diff(rows, axis=0) != 0).any(axis=1)))
        parts, counts = [rows[starts]], [np.add.reduceat(np.concatenate(counts)[order], starts)]
        waiting, limit = 0, max(_COMBINATIONS_IN_MEMORY, len(starts))

    for batch in batches:
        parts.append(batch)
        counts.append(np.ones(len(batch), np.int64))
        waiting += len(batch)
        if waiting > limit:
            merge()
    merge()
    return parts[0], counts[0]


def read_tokens(path: str, dtype: str) -> Tokens:
    """Read a vocabulary file: one token a line, `[tokens]`."""
    with tf.io.gfile.GFile(path, "rb") as file:
        lines = file.read().split(b"\n")[:-1]
    return np.array(lines).astype(np.int64) if dtype == "int64" else np.array(lines, object)


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
