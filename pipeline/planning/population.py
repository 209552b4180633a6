"""Estimates how many distinct tokens a log has, from a sample of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Ranks are grouped into this many bins, narrow ones for the frequent tokens.
BINS = 300


@dataclass(frozen=True)
class Population:
    """Describes tokens that are drawn with probabilities proportional to (rank + 1) ** -exponent."""

    size: float
    exponent: float

    def _bins(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Returns the tokens in each bin, and the probability of one of them."""
        edges = np.unique(np.rint(np.geomspace(1, self.size + 1, BINS)))
        counts = np.diff(edges)
        weights = np.sqrt(edges[:-1] * np.maximum(edges[1:] - 1, edges[:-1])) ** -self.exponent
        return counts, weights / (counts * weights).sum()

    def distinct(self, draws: float) -> float:
        """Returns the expected number of tokens that are drawn at least once."""
        return self.at_least(draws, 1)

    def at_least(self, draws: float, times: int) -> float:
        """Returns the expected number of tokens that are drawn at least `times` times (counts as Poisson)."""
        counts, probabilities = self._bins()
        mean = draws * probabilities
        term, below = np.exp(-mean), np.zeros_like(mean)
        for drawn in range(times):
            below += term
            term = term * mean / (drawn + 1)
        return float((counts * np.clip(1 - below, 0, 1)).sum())


def estimate_population(ranges: list[npt.NDArray[np.uint64]]) -> Population:
    """Fits a population to the growth of the number of distinct tokens with the number of ranges.

    `ranges` holds the distinct tokens (hashes) of ranges from all over the log. A token counts once a range, so a log
    sorted by user, where one range has all rows of a user, gives the same estimate as a log sorted by time.
    """
    counts = [len(ranges) // 4, len(ranges) // 2, len(ranges)] if len(ranges) >= 4 else [len(ranges)]
    draws = float(np.mean([len(tokens) for tokens in ranges]))
    seen = [_mean_distinct(ranges, count) for count in counts]
    if seen[-1] > 0.999 * draws * counts[-1]:
        # No token came twice, so the sample gives no upper bound.
        return Population(1e12, 0.0)
    best, least = Population(seen[-1], 0.0), math.inf
    for exponent in np.linspace(0, 1.6, 33):
        for size in np.geomspace(seen[-1], 1e4 * seen[-1], 120):
            population = Population(float(size), float(exponent))
            error = sum(
                math.log(population.distinct(draws * count) / found) ** 2
                for count, found in zip(counts, seen, strict=True)
            )
            if error < least:
                best, least = population, error
    return best


def _mean_distinct(ranges: list[npt.NDArray[np.uint64]], count: int) -> float:
    """Returns the mean number of distinct tokens in `count` evenly spread ranges, over all first ranges."""
    step = len(ranges) // count
    return float(np.mean([len(np.unique(np.concatenate(ranges[start::step][:count]))) for start in range(step)]))
