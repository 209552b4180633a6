"""Counts the rows read so far, for a launcher that runs in the same process as the workers.

Beam's own counters reach the launcher only after an in-process job. On Dataflow, and with
`--direct_running_mode=multi_processing`, other processes count and the launcher shows nothing until the end; Dataflow's
page shows the counters.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from pipeline.manifest import Progress

# Of the counters that the page of a job shows.
NAMESPACE = "dotbias"

# Why the input is read: a pass over all of it.
Pass = Literal["cut", "analyze", "transform"]

# Seconds between two reports.
INTERVAL = 0.5

_lock = threading.Lock()
# By pass, in the order in which they begin.
_rows: dict[Pass, int] = {}


def count_rows(name: Pass, amount: int) -> None:
    """Adds to the rows that a pass has read."""
    with _lock:
        _rows[name] = _rows.get(name, 0) + amount


@contextmanager
def reported(report: Progress | None) -> Iterator[None]:
    """Reports the rows that each pass reads while the block runs, as stages such as "preprocess: analyze"."""
    if report is None:
        yield
        return
    with _lock:
        _rows.clear()
    done = threading.Event()
    # The stage that is shown; the passes before it are complete.
    shown = 0

    def show() -> None:
        nonlocal shown
        with _lock:
            rows = list(_rows.items())
        if not rows:
            report("preprocess", 0, None, {})
        for number, (name, count) in enumerate(rows[shown:], start=shown):
            report(f"preprocess: {name}", count, None, {})
            shown = number

    def watch() -> None:
        while not done.wait(INTERVAL):
            show()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        show()
