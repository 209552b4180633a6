"""Measures steady speed between two moments, so that imports and compilation do not count."""

from __future__ import annotations

import json
import time


class Pace:
    """Collects calls of `at(rows done)`; everything before the first call is warm-up."""

    def __init__(self) -> None:
        self._marks: list[tuple[int, float, float]] = []

    def at(self, rows: int) -> None:
        self._marks = [*self._marks[:1], (rows, time.perf_counter(), time.process_time())]

    def say(self) -> None:
        """Prints the line that `harness.measure.run` reads."""
        (rows_0, wall_0, cpu_0), (rows_1, wall_1, cpu_1) = self._marks
        rows = rows_1 - rows_0
        said = {"rows_per_second": rows / (wall_1 - wall_0), "cpu_seconds_per_million": (cpu_1 - cpu_0) / rows * 1e6}
        print(json.dumps(said))
