"""Hashes whole arrays of tokens, and whole rows, with the same result in every process."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Hashes = npt.NDArray[np.uint64]

# 64-bit offsets, because a hundred million tokens exceed the 2 GiB of a plain string array.
TOKEN_TYPES: dict[str, pa.DataType] = {"int64": pa.int64(), "string": pa.large_binary()}

# Strings, and rows, hashed at once; the temporary arrays of more do not fit the processor's cache.
_STRINGS_AT_ONCE = 1 << 12
_ROWS_AT_ONCE = 1 << 14
# 2**64 divided by the golden ratio.
_BASE = 0x9E3779B97F4A7C15


def token_hashes(tokens: pa.Array) -> Hashes:
    """Hashes each token of an array of int64 or large_binary without nulls.

    A string is first hashed by a polynomial of its bytes modulo 2**64 (Rabin and Karp), many strings at once by prefix
    sums. Both kinds are then mixed by the finalizer of SplitMix64 (Steele et al., 2014).
    """
    if pa.types.is_integer(tokens.type):
        return mix(tokens.to_numpy().astype(np.uint64))
    if len(tokens) == 0:
        return np.empty(0, np.uint64)
    _, offset_buffer, data = tokens.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[tokens.offset : tokens.offset + len(tokens) + 1]
    text = np.frombuffer(data or b"", np.uint8)
    values = np.empty(len(tokens), np.uint64)
    for first in range(0, len(values), _STRINGS_AT_ONCE):
        bounds = offsets[first : first + _STRINGS_AT_ONCE + 1]
        values[first : first + len(bounds) - 1] = _polynomials(text[bounds[0] : bounds[-1]], bounds - bounds[0])
    return mix(values)


def row_hashes(rows: pa.RecordBatch) -> Hashes:
    """Hashes each row by the values of all its columns (int64, string or float32, without nulls)."""
    hashes = np.empty(len(rows), np.uint64)
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        hashes[first : first + _ROWS_AT_ONCE] = _row_hashes(rows[first : first + _ROWS_AT_ONCE])
    return hashes


def _row_hashes(rows: pa.RecordBatch) -> Hashes:
    hashes = np.full(len(rows), _BASE, np.uint64)
    for column in rows.columns:
        if pa.types.is_floating(column.type):
            # Adding 0 makes -0 and 0 equal.
            values = mix((column.to_numpy() + np.float32(0)).view(np.uint32).astype(np.uint64))
        else:
            values = token_hashes(column if pa.types.is_integer(column.type) else column.cast(pa.large_binary()))
        hashes = mix(hashes ^ values)
    return hashes


def keyed(hashes: Hashes, key: int) -> Hashes:
    """Hashes again; two keys in [0, 2**63) give independent results."""
    return mix(hashes ^ mix(np.array([key], np.uint64) ^ np.uint64(_BASE)))


def mix(values: Hashes) -> Hashes:
    """Applies the finalizer of SplitMix64: each bit of the result depends on all bits of the value."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _polynomials(text: npt.NDArray[np.uint8], bounds: npt.NDArray[np.int64]) -> Hashes:
    """Returns the polynomial of each string `text[bounds[i] : bounds[i + 1]]`, modulo 2**64."""
    powers, inverse_powers = _powers(1 << len(text).bit_length())
    terms = text.astype(np.uint64)
    terms += np.uint64(1)
    terms *= powers[: len(text)]
    sums = np.zeros(len(text) + 1, np.uint64)
    np.cumsum(terms, out=sums[1:])
    starts, ends = bounds[:-1], bounds[1:]
    # An odd base has an inverse, so the polynomial of each string can start at the same power.
    return (sums[ends] - sums[starts]) * inverse_powers[starts]


@functools.lru_cache(maxsize=4)
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """Returns powers 1 to `count` of the base and of its inverse modulo 2**64."""
    bases = np.array([[_BASE], [pow(_BASE, -1, 2**64)]], np.uint64)
    powers: Hashes = np.cumprod(np.repeat(bases, count, axis=1), axis=1, dtype=np.uint64)
    return powers[0], powers[1]
