"""Random numbers that depend on the seed and a row's place in the input alone: not on the runner, a worker or a run."""

from __future__ import annotations

import enum

import numpy as np


class Purpose(enum.IntEnum):
    """Draws for different purposes are independent of each other."""

    SPLIT = 0
    SHARD = 1
    ORDER = 2
    SAMPLE = 3


def generator(seed: int, purpose: Purpose, first: int, second: int) -> np.random.Generator:
    """A generator of its own for each (seed, purpose, first, second), all integers in [0, 2**63).

    Philox is counter-based: the seed and `first` make its key, the rest its counter, so that no two streams overlap
    within 2**64 draws. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
    """
    bits = np.random.Philox(
        key=np.array([seed, first], np.uint64), counter=np.array([0, 0, purpose, second], np.uint64)
    )
    return np.random.Generator(bits)
