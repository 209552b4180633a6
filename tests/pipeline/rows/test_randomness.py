from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rows.randomness import Purpose, generator

_whole = st.integers(0, 2**63 - 1)


@given(_whole, st.sampled_from(Purpose), _whole, _whole)
def test_the_same_place_gives_the_same_numbers(seed: int, purpose: Purpose, first: int, second: int) -> None:
    draws = [generator(seed, purpose, first, second).random(100) for _ in range(2)]
    np.testing.assert_array_equal(*draws)


def test_neighbouring_streams_are_independent() -> None:
    """Compares the streams also when shifted, since overlapping counters would repeat a stream a few draws later."""
    places = itertools.product((0, 1, 42), Purpose, (0, 1), (0, 1, 2, 8 << 20))
    streams = np.stack([generator(*place).random(5000) for place in places])
    correlations = np.corrcoef(streams) - np.eye(len(streams))
    assert np.abs(correlations).max() < 5 / np.sqrt(5000)
    assert len(np.unique(streams)) == streams.size


def test_known_numbers() -> None:
    """Datasets that exist were made with these."""
    known = [0.9756427741835573, 0.2515128115712768, 0.27446878993807833]
    assert generator(42, Purpose.SHARD, 0, 0).random(3).tolist() == known
