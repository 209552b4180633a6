"""Shows progress: a bar on a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from tqdm import tqdm

# Seconds between two lines: often enough to see the pace, rarely enough to find other lines.
SECONDS_BETWEEN_LINES = 10.0


class ProgressDisplay:
    """Shows (stage, rows done, all rows or None, numbers) when it is called; a new stage ends the one before it.

    Args:
        stream: where to print; bars on a terminal, else lines.
        clock: returns seconds, for the pace and for `seconds`.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock
        # Beam reports from its own threads.
        self._lock = threading.RLock()
        self._stage: _Stage | None = None
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __call__(self, stage: str, done: int, total: int | None, numbers: Mapping[str, float]) -> None:
        with self._lock:
            if self._stage is None or self._stage.name != stage:
                self.close()
                drawing = _Bar if self._stream.isatty() else _Lines
                self._stage = drawing(stage, done, self._stream, self._clock)
            self._stage.update(done, total, numbers)

    def close(self) -> None:
        """Ends the current stage; its last line stays on the screen."""
        with self._lock:
            if self._stage is not None:
                self._stage.close()
                # A stage can come again, for instance once per epoch.
                seconds = self._clock() - self._stage.started
                self.seconds[self._stage.name] = self.seconds.get(self._stage.name, 0.0) + seconds
                self._stage = None


class _Stage:
    def __init__(self, name: str, first: int, stream: TextIO, clock: Callable[[], float]):
        self.name = name
        self.started = clock()
        # Rows that an earlier start processed do not count for the pace.
        self._first = first
        self._stream = stream
        self._clock = clock

    def update(self, done: int, total: int | None, numbers: Mapping[str, float]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class _Bar(_Stage):
    def __init__(self, name: str, first: int, stream: TextIO, clock: Callable[[], float]):
        super().__init__(name, first, stream, clock)
        self._bar: tqdm[Any] = tqdm(
            desc=name, initial=first, unit=" rows", unit_scale=True, file=stream, dynamic_ncols=True
        )

    def update(self, done: int, total: int | None, numbers: Mapping[str, float]) -> None:
        self._bar.total = total
        self._bar.set_postfix({key: f"{value:.4g}" for key, value in numbers.items()}, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.close()


class _Lines(_Stage):
    def __init__(self, name: str, first: int, stream: TextIO, clock: Callable[[], float]):
        super().__init__(name, first, stream, clock)
        self._last_line = self.started
        self._state: tuple[int, int | None, Mapping[str, float]] = (0, None, {})
        self._print(f"INFO {name} ...")

    def update(self, done: int, total: int | None, numbers: Mapping[str, float]) -> None:
        self._state = (done, total, dict(numbers))
        now = self._clock()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._print(progress_line(self.name, self._first, done, total, now - self.started, numbers))

    def close(self) -> None:
        done, _, numbers = self._state
        seconds = self._clock() - self.started
        self._print(progress_line(self.name, self._first, done, None, seconds, numbers) + f", {seconds:.1f} s")

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def progress_line(
    stage: str, first: int, done: int, total: int | None, seconds: float, numbers: Mapping[str, float]
) -> str:
    """Returns a line for a log: rows done, rows per second since `first`, seconds left, and the numbers."""
    parts = [f"{done:,} rows" if total is None else f"{done:,} of {total:,} rows ({done / max(total, 1):.0%})"]
    if done > first and seconds > 0:
        pace = (done - first) / seconds
        parts.append(f"{pace:,.0f} rows/s")
        if total is not None and total > done:
            parts.append(f"eta {(total - done) / pace:,.0f} s")
    parts += [f"{key} {value:.4g}" for key, value in numbers.items()]
    return f"INFO {stage}: {', '.join(parts)}"
