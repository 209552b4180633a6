"""`WriteRejected` writes the rows that are left out, with the reason, so that every row of the log is accounted for."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import apache_beam as beam

from pipeline.beam.adding import AddUp
from pipeline.input.interactions import Interactions, RejectedRow, RejectedRows
from pipeline.manifest import REJECTED_DIRECTORY, join
from pipeline.output.attempts import WrittenFile
from pipeline.output.tallies import Tally
from pipeline.storage.files import write_file

HEADER = ("reason", "file", "offset", "text")
# Several files, which are sorted in memory.
FILES = 10


class WrittenRejected(NamedTuple):
    """Holds the results of `WriteRejected`: a `WrittenFile` for each file, and tallies of the rows in none of them."""

    files: beam.PCollection
    tallies: beam.PCollection


class WriteRejected(beam.PTransform):
    """Writes `rejected/part-*.csv`, with a header, in the order of the input.

    If a reason has more rows than one worker should hold, a sample of them is written (see `RejectedRows`).

    Args:
        directory: where to write.
        temporary: directory for files that are being written.
        names: names of the input files, by number.
    """

    def __init__(self, directory: str, temporary: str, names: list[str]) -> None:
        super().__init__()
        self._directory = directory
        self._temporary = temporary
        self._names = names

    def expand(self, batches: beam.PCollection) -> WrittenRejected:
        kept = (
            batches
            | "Rejected" >> beam.FlatMap(_by_reason).with_output_types(tuple[str, RejectedRows])
            | "OfReason" >> beam.CombinePerKey(AddUp(RejectedRows))
        )
        files = (
            kept
            | "Parts" >> beam.FlatMapTuple(_by_part)
            | "Group" >> beam.GroupByKey()
            | "Write" >> beam.MapTuple(self._write)
        )
        return WrittenRejected(files, kept | "NotKept" >> beam.MapTuple(_tally))

    def _write(self, part: int, rows: Iterable[tuple[RejectedRow, str]]) -> WrittenFile:
        name = f"{REJECTED_DIRECTORY}/part-{part:05d}.csv"
        in_order = sorted(rows, key=lambda row: (row[0].file, row[0].offset))
        # Bytes that are not UTF-8 are written as they were read.
        lines = [
            (reason, self._names[row.file], row.offset, row.text.decode("utf-8", "surrogateescape"))
            for row, reason in in_order
        ]
        data = _csv_lines([HEADER, *lines])
        write_file(join(self._directory, name), data, self._temporary)
        return WrittenFile(name, len(data))


def _by_reason(batch: Interactions) -> Iterable[tuple[str, RejectedRows]]:
    return batch.rejected.items()


def _by_part(reason: str, rejected: RejectedRows) -> Iterator[tuple[int, tuple[RejectedRow, str]]]:
    for row in rejected.rows:
        yield (row.file + row.block) % FILES, (row, reason)


def _tally(reason: str, rejected: RejectedRows) -> Tally:
    return Tally(not_kept=Counter({reason: rejected.not_kept}) if rejected.not_kept else Counter())


def _csv_lines(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO()
    # All texts are quoted, since some versions of Python leave a carriage return unquoted and cannot read it back.
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")
