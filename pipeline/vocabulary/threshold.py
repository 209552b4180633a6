"""Chooses the frequency threshold of a vocabulary where the configuration leaves it open."""

from __future__ import annotations

# Tokens that occur once get an index of their own where they have at least this share of the rows.
_SHARE_OF_ROWS = 0.05


def automatic_threshold(rows: int, once: int) -> int:
    """Returns 1 where at least a twentieth of the rows have a token that occurs once, else 2.

    That share estimates how often the next row has a token that was never seen (I. Good, "The population frequencies of
    species and the estimation of population parameters", 1953). Where it is large, most rows that a model is asked for
    have rare ids, and even one row says something of each. Where it is small, tokens that occur once only make the
    table larger. docs/benchmarks.md measures both.

    >>> automatic_threshold(1000, 49), automatic_threshold(1000, 50)
    (2, 1)
    """
    return 1 if rows and once >= _SHARE_OF_ROWS * rows else 2
