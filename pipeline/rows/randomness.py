"""Draws random numbers that depend only on the seed and a place in the input, not on runner, worker or run."""

from __future__ import annotations

import enum

import numpy as np


class Purpose(enum.IntEnum):
    """Names what numbers are drawn for; draws for different purposes are independent of each other."""

    SHARD = 1
    ORDER = 2
    SAMPLE = 3


def generator(seed: int, purpose: Purpose, first: int, second: int) -> np.random.Generator:
    """Returns the generator of (seed, purpose, first, second), integers in [0, 2**63).

    Philox is counter-based: the seed and `first` are its key, the rest its counter, so two streams do not overlap
    within 2**64 draws. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
    """
    bits = np.random.Philox(
        key=np.array([seed, first], np.uint64), counter=np.array([0, 0, purpose, second], np.uint64)
    )
    return np.random.Generator(bits)
