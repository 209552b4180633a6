"""Hashes whole arrays of tokens, with the same result in every process."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

# 64-bit offsets, because a hundred million tokens exceed the 2 GiB of a plain string array.
TOKEN_TYPES: dict[str, pa.DataType] = {"int64": pa.int64(), "string": pa.large_binary()}


def token_hashes(tokens: pa.Array) -> npt.NDArray[np.uint64]:
    """Hashes each token of an array of int64 or large_binary without nulls.

    A string is first hashed by a polynomial of its bytes modulo 2**64 (Rabin and Karp), all strings at once by prefix
    sums. Both kinds are then mixed by the finalizer of SplitMix64 (Steele et al., 2014).
    """
    if pa.types.is_integer(tokens.type):
        values = tokens.to_numpy().astype(np.uint64)
    elif len(tokens) == 0:
        values = np.empty(0, np.uint64)
    else:
        _, offset_buffer, data = tokens.buffers()
        offsets = np.frombuffer(offset_buffer, np.int64)[tokens.offset : tokens.offset + len(tokens) + 1]
        text = np.frombuffer(data or b"", np.uint8)[offsets[0] : offsets[-1]].astype(np.uint64)
        starts, ends = offsets[:-1] - offsets[0], offsets[1:] - offsets[0]
        base = np.uint64(0x9E3779B97F4A7C15)
        powers = np.cumprod(np.full(len(text) + 1, base))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum((text + np.uint64(1)) * powers[:-1])])
        # An odd base has an inverse, so the polynomial of each token can start at power 0.
        inverse_powers = np.cumprod(np.full(len(text) + 1, np.uint64(pow(int(base), -1, 2**64))))
        values = (sums[ends] - sums[starts]) * inverse_powers[starts]
    return mix(values)


def mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Applies the finalizer of SplitMix64: each bit of the result depends on all bits of the value."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
