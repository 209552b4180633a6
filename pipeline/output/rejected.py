"""`WriteRejected` writes the rows that are left out, with the reason, so that every row of the log is accounted for."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

import apache_beam as beam

from pipeline.input.interactions import Interactions
from pipeline.manifest import REJECTED_DIRECTORY, join
from pipeline.output.attempts import WrittenFile
from pipeline.storage.files import write_file

HEADER = ("reason", "file", "offset", "text")
# Several files, so that a log full of bad rows does not end up on one worker. A file is sorted in memory; even if every
# row is bad, it holds about its share of the input.
_FEWEST_FILES, _INPUT_BYTES_OF_FILE = 10, 4 << 30


def num_files(input_bytes: int) -> int:
    """Returns how many files of rejected rows an input of that size gets at most."""
    return max(_FEWEST_FILES, input_bytes // _INPUT_BYTES_OF_FILE)


class WriteRejected(beam.PTransform):
    """Writes `rejected/part-*.csv`, with a header, in the order of the input; yields a `WrittenFile` for each.

    Args:
        directory: where to write.
        temporary: directory for files that are being written.
        names: names of the input files, by number.
        files: the number of files at most.
    """

    def __init__(self, directory: str, temporary: str, names: list[str], files: int) -> None:
        super().__init__()
        self._directory = directory
        self._temporary = temporary
        self._names = names
        self._files = files

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        return (
            batches
            | "Format" >> beam.FlatMap(_format, self._names, self._files)
            | "Group" >> beam.GroupByKey()
            | "Write" >> beam.MapTuple(self._write)
        )

    def _write(self, part: int, texts: Iterable[tuple[int, int, bytes]]) -> WrittenFile:
        name = f"{REJECTED_DIRECTORY}/part-{part:05d}.csv"
        data = b"".join([_csv_lines([HEADER]), *(text for _, _, text in sorted(texts))])
        write_file(join(self._directory, name), data, self._temporary)
        return WrittenFile(name, len(data))


def _format(batch: Interactions, names: list[str], files: int) -> Iterator[tuple[int, tuple[int, int, bytes]]]:
    if batch.rejected:
        # Bytes that are not UTF-8 are written as they were read.
        rows = [
            (r.reason, names[batch.file], r.offset, r.text.decode("utf-8", "surrogateescape")) for r in batch.rejected
        ]
        part = (batch.file + batch.offset) % files
        yield part, (batch.file, batch.offset, _csv_lines(rows))


def _csv_lines(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO()
    # All texts are quoted, since some versions of Python leave a carriage return unquoted and cannot read it back.
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")
