"""Keeps batches of rows from the first pass over a log to the last, where this process makes all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence

from pipeline.beam.in_process import InProcess
from pipeline.config import PipelineConfig
from pipeline.input.interactions import Interactions
from pipeline.input.parsing import Block
from pipeline.input.ranges import make_interactions, split_input
from pipeline.manifest import DotbiasError, InputFile
from pipeline.storage.paths import is_remote

# About 19 million ratings with timestamps. They are gone before as many bytes wait to be written to shards.
KEPT_BYTES = 512 << 20


class KeptBatches(InProcess):
    """Holds batches by the place that they were read from, until they have `KEPT_BYTES`; later ones are read again.

    Batches with rejected rows are read again too.

    Args:
        files: the log, as it is when the first of the batches is read.
    """

    def __init__(self, files: Sequence[InputFile]) -> None:
        super().__init__()
        self.files = files
        self._lock = threading.Lock()
        self._batches: dict[Hashable, Interactions] = {}
        self._bytes = 0
        self._is_asked = False

    def add(self, place: Hashable, batch: Interactions) -> bool:
        """Keeps a batch, if it fits; returns whether there may be room for more."""
        size = batch.rows.nbytes
        with self._lock:
            fits = self._bytes + size <= KEPT_BYTES
            if fits and not batch.rejected and place not in self._batches:
                self._batches[place] = batch
                self._bytes += size
            return fits

    def get(self, place: Hashable) -> Interactions | None:
        """Returns the batch of a place, if it is kept."""
        self._is_asked = True
        return self._batches.get(place)

    def take(self, place: Hashable) -> Interactions | None:
        """Does what `get` does, and keeps the batch no longer."""
        self._is_asked = True
        return self._batches.pop(place, None)

    def read_ahead(self, config: PipelineConfig) -> None:
        """Reads batches in a thread until there is no more room, or the job begins to ask for them.

        The job needs seconds to import its libraries, but reading needs Arrow only. Files on a store wait for Beam; of
        files whose counts are kept, the job may not need all rows.
        """
        if config.counts_cache is None and not any(is_remote(file.path) for file in self.files):
            threading.Thread(target=self._read, args=[config], daemon=True).start()

    def _read(self, config: PipelineConfig) -> None:
        try:
            for place, file, parse in _blocks(self.files, config):
                if self._is_asked:
                    return
                batch = make_interactions(file, parse, config)
                if batch is not None and not self.add(place, batch):
                    return
        except DotbiasError:
            # The job finds the same mistake and reports it.
            return


def _blocks(
    files: Sequence[InputFile], config: PipelineConfig
) -> Iterator[tuple[Hashable, int, Callable[[], Block | None]]]:
    for numbered in enumerate(files):
        for file_range in split_input(numbered, config):
            for number, parse in enumerate(file_range.blocks(config)):
                yield (file_range, number), file_range.file, parse
