"""A hash of tokens that is the same in every process, for whole arrays at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

# 64-bit offsets: a hundred million tokens are more than the 2 GiB that a plain string array can hold.
TOKEN_TYPES: dict[str, pa.DataType] = {"int64": pa.int64(), "string": pa.large_binary()}


def token_hashes(tokens: pa.Array) -> npt.NDArray[np.uint64]:
    """A hash of each token that is the same in every process, for arrays of int64 or large_binary without nulls.

    Strings get a polynomial in their bytes modulo 2**64 (Rabin and Karp), all at once through prefix sums; both kinds
    are then mixed by the finalizer of SplitMix64 (Steele et al., 2014).
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
        # An odd base has an inverse, which moves each token's polynomial to the origin.
        inverse_powers = np.cumprod(np.full(len(text) + 1, np.uint64(pow(int(base), -1, 2**64))))
        values = (sums[ends] - sums[starts]) * inverse_powers[starts]
    return mix(values)


def mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finalizer of SplitMix64: every bit of a value comes to matter for every bit of the result."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
