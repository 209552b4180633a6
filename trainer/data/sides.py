"""Finds out which ids of several features of a side belong together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipeline.manifest import DotbiasError, Side
from trainer.data.dataset import Dataset, side_features
from trainer.data.lookup import TokenLookup, Tokens, read_tokens
from trainer.data.reader import read_batches

_ROWS_AT_A_TIME = 1 << 16
# Combinations that wait before equal ones are merged.
_COMBINATIONS_IN_MEMORY = 1 << 22

Indices = npt.NDArray[np.int64]


def side_rows(data: Dataset, side: Side) -> dict[str, Indices]:
    """Return the table rows of all features of a side for each row of the first feature's table, `[rows]` each.

    With several features, the others have the tokens that the dataset names for each token of the vocabulary, and an
    OOV bucket has their first OOV bucket. If the first feature is hashed, the train rows are read: they are the
    combination that most rows with that id have; of equally frequent ones, that with the lowest rows. An id without
    train rows has the first OOV bucket of the others then.
    """
    features = side_features(data, side)
    first, others = features[0], features[1:]
    found = {first: np.arange(data.table_rows[first])}
    if not others:
        return found
    for name in others:
        found[name] = np.full(data.table_rows[first], data.manifest.features[name].vocabulary_size or 0)
    if data.manifest.features[first].encoding == "vocabulary":
        for name in others:
            tokens = _usual_tokens(data, name)
            found[name][: len(tokens)] = TokenLookup(data, name)(tf.constant(tokens)).numpy()
        return found
    batches = read_batches(data, "train", _ROWS_AT_A_TIME)
    combinations, counts = _count_rows(np.stack([f[name].numpy() for name in features], axis=1) for f, _ in batches)
    # The most frequent first; the sort is stable, so ties stay in the order of the rows.
    order = np.lexsort((-counts, combinations[:, 0]))
    best = combinations[order]
    best = best[np.diff(best[:, 0], prepend=-1) != 0]
    for column, name in enumerate(others, start=1):
        found[name][best[:, 0]] = best[:, column]
    return found


def _usual_tokens(data: Dataset, name: str) -> Tokens:
    feature = data.manifest.features[name]
    if feature.usual_path is None:
        raise DotbiasError(
            f"{data.path} does not say which {name!r} goes with each user or item; preprocess again with this version."
        )
    return read_tokens(data.file(feature.usual_path), feature.token_dtype)


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
