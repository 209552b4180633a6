"""Keeps batches of rows from the first pass over a log to the last, where this process makes all of them."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from pipeline.beam.in_process import InProcess
from pipeline.input.interactions import Interactions

# About 19 million ratings with timestamps. They are gone before as many bytes wait to be written to shards.
KEPT_BYTES = 512 << 20


class KeptBatches(InProcess):
    """Holds batches by the place that they were read from, until they have `KEPT_BYTES`; later ones are read again.

    Batches with rejected rows are read again too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._batches: dict[Hashable, Interactions] = {}
        self._bytes = 0

    def add(self, place: Hashable, batch: Interactions) -> None:
        """Keeps a batch, if it fits."""
        size = batch.rows.nbytes
        with self._lock:
            if not batch.rejected and self._bytes + size <= KEPT_BYTES:
                self._batches[place] = batch
                self._bytes += size

    def get(self, place: Hashable) -> Interactions | None:
        """Returns the batch of a place, if it is kept."""
        return self._batches.get(place)

    def take(self, place: Hashable) -> Interactions | None:
        """Does what `get` does, and keeps the batch no longer."""
        return self._batches.pop(place, None)
