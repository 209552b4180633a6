"""Combines elements that know how to add others of their kind, within bounds of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import apache_beam as beam


class Sum(Protocol):
    """Holds a sum."""

    def add(self, other: Any) -> None:
        """Adds another one."""

    def bound(self) -> None:
        """Drops what is above the bounds."""


class AddUp(beam.CombineFn):
    """Adds elements up. Workers send sums that are within their bounds, so that one worker can add those.

    Args:
        empty: makes the sum of no elements.
    """

    def __init__(self, empty: Callable[[], Sum]) -> None:
        super().__init__()
        self._empty = empty

    def create_accumulator(self) -> Sum:
        return self._empty()

    def add_input(self, total: Sum, element: Sum) -> Sum:
        total.add(element)
        return total

    def merge_accumulators(self, accumulators: Iterable[Sum]) -> Sum:
        total = self._empty()
        for accumulator in accumulators:
            total.add(accumulator)
        return total

    def compact(self, total: Sum) -> Sum:
        total.bound()
        return total

    def extract_output(self, total: Sum) -> Sum:
        return self.compact(total)
