"""Counts the rows read so far, for a launcher that runs in the same process as the workers.

Beam's own counters reach the launcher only after an in-process job. On Dataflow, and with
`--direct_running_mode=multi_processing`, other processes count and the launcher shows nothing until the end; Dataflow's
page shows the counters.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.manifest import Progress

# Seconds between two reports.
INTERVAL = 0.5


class _Counter:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.value = 0

    def add(self, amount: int) -> None:
        with self._lock:
            self.value += amount


rows_read = _Counter()


@contextmanager
def reported(report: Progress | None) -> Iterator[None]:
    """Reports the rows that are read while the block runs: once for the analysis, once for the transformation."""
    if report is None:
        yield
        return
    rows_read.value = 0
    done = threading.Event()

    def watch() -> None:
        while not done.wait(INTERVAL):
            report("preprocess", rows_read.value, None, {})

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        report("preprocess", rows_read.value, None, {})
