"""`ReadInteractions`: files of the raw log -> Arrow record batches and rejected rows."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows
from isal import igzip, isal_zlib

from pipeline import progress
from pipeline.ahead import Ahead
from pipeline.config import PipelineConfig
from pipeline.files import open_file
from pipeline.input_files import InputError, check_unchanged
from pipeline.labels import make_labels
from pipeline.manifest import InputFile
from pipeline.parsing import BOM, CsvFormat, Parsed, Rejected, parse_lines, split_lines

# About 300 000 rows of a ratings file. Larger ranges are slower, for the processor's caches.
RANGE_BYTES = 8 << 20
# Ranges that a bundle parses while it hands on those before.
PARSERS = 2
# A line longer than this is not an interaction but a binary file, or one with other line ends.
MAX_LINE_BYTES = 16 << 20
GZIP_MAGIC = b"\x1f\x8b"

_READ_ERRORS = (EOFError, OSError, ValueError, isal_zlib.error)

LABEL = "label"


@dataclass(frozen=True)
class Interactions:
    """Rows that follow each other in a file: the features' tokens, `label`, and the timestamp column if there is one.

    `file` is the file's number in the input and `offset` where the batch begins in it (decompressed); together they
    name the batch. `rejected` are the rows of the same stretch that are not in `rows`.
    """

    file: int
    offset: int
    rows: pa.RecordBatch
    rejected: list[Rejected]


@dataclass(frozen=True)
class _Stretch:
    """The lines of a file whose first byte is in [start, end); all lines from `start` on if it is compressed."""

    file: int
    path: str
    start: int
    end: int
    names: tuple[str, ...]
    compressed: bool


class ReadInteractions(beam.PTransform):
    """Reads the files in byte ranges, gzip files whole, and yields a batch of `Interactions` for each."""

    def __init__(self, files: list[InputFile], config: PipelineConfig) -> None:
        super().__init__()
        self._files = files
        self._config = config

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        return (
            pipeline
            | "Files" >> beam.Create(list(enumerate(self._files)))
            | "SplitFiles" >> beam.FlatMap(split_file, self._config)
            | "Reshuffle" >> beam.Reshuffle()
            | "ReadStretches" >> beam.ParDo(_ReadStretch(self._config))
        )


def split_file(numbered: tuple[int, InputFile], config: PipelineConfig) -> Iterator[_Stretch]:
    """Cuts the input's file of that number into stretches that can be read independently of each other.

    Raises:
        InputError: the file is not what it was, or its header lacks a column.
    """
    number, file = numbered
    check_unchanged([file])
    names, start = tuple(config.columns), 0
    with _naming(file.path), open_file(file.path) as raw:
        compressed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        raw.seek(0)
        if config.input.has_header:
            names, start = read_header(file.path, igzip.IGzipFile(fileobj=raw) if compressed else raw, config)
    if compressed:
        yield _Stretch(number, file.path, start, 0, names, compressed)
        return
    for begin in range(0, file.bytes, RANGE_BYTES):
        end = min(begin + RANGE_BYTES, file.bytes)
        if end > start:
            yield _Stretch(number, file.path, max(begin, start), end, names, compressed)


def read_header(path: str, file: BinaryIO, config: PipelineConfig) -> tuple[tuple[str, ...], int]:
    """The column names in the first line of a file that is not empty, and the offset of the line after it."""
    start = 0
    for line in iter(lambda: file.readline(MAX_LINE_BYTES), b""):
        text = (line if start else line.removeprefix(BOM)).rstrip(b"\r\n")
        start += len(line)
        if text:
            return _names_in_header(path, text, config), start
    # A file without lines has no rows and needs no header.
    return tuple(config.columns), start


def _names_in_header(path: str, line: bytes, config: PipelineConfig) -> tuple[str, ...]:
    try:
        text = line.decode()
        names = tuple(next(csv.reader([text], delimiter=config.input.delimiter)))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the header is not UTF-8 ({error.reason} at byte {error.start}).") from None
    except csv.Error as error:
        raise InputError(f"{path}: the header is not a line of CSV ({error}). It begins: {text[:200]!r}.") from None
    for name in needed_columns(config):
        if names.count(name) != 1:
            problem = "has no column" if name not in names else "has more than one column"
            raise InputError(
                f"{path}: the header {problem} {name!r}. It reads: {text[:200]!r}. "
                "Correct `pipeline.columns`, or set `pipeline.input.has_header=false` if there is no header."
            )
    return names


def needed_columns(config: PipelineConfig) -> list[str]:
    """The columns that are read: features, label, timestamp."""
    return [*config.features, config.label.column, *([config.timestamp_column] if config.timestamp_column else [])]


class _ReadStretch(beam.DoFn):
    def __init__(self, config: PipelineConfig) -> None:
        super().__init__()
        self._config = config
        self._rows_read = Metrics.counter("dotbias", "rows_read")

    def start_bundle(self) -> None:
        self._ahead: Ahead[Interactions] = Ahead(PARSERS)

    def process(self, stretch: _Stretch) -> Iterator[Interactions]:
        types = tuple((name, self._config.columns[name]) for name in needed_columns(self._config))
        form = CsvFormat(stretch.names, types, self._config.input.delimiter)
        for offset, lines in read_stretch(stretch):
            for batch in self._ahead.submit(_parse, stretch.file, offset, lines, form, self._config):
                yield self._counted(batch)

    def finish_bundle(self) -> Iterator[Any]:
        for batch in self._ahead.drain():
            yield GlobalWindows.windowed_value(self._counted(batch))

    def _counted(self, batch: Interactions) -> Interactions:
        lines = len(batch.rows) + len(batch.rejected)
        self._rows_read.inc(lines)
        progress.rows_read.add(lines)
        return batch


def _parse(file: int, offset: int, lines: bytes, form: CsvFormat, config: PipelineConfig) -> Interactions:
    parsed = label_rows(parse_lines(lines, offset, form), lines, offset, config)
    return Interactions(file, offset, parsed.rows, parsed.rejected)


def read_stretch(stretch: _Stretch) -> Iterator[tuple[int, bytes]]:
    """Yields (offset, whole lines) of a stretch, together every line that begins in it.

    Raises:
        InputError: the file cannot be read or decompressed to its end, or a line is longer than `MAX_LINE_BYTES`.
    """
    with _naming(stretch.path), open_file(stretch.path) as file:
        if stretch.compressed:
            yield from _read_compressed(stretch, igzip.IGzipFile(fileobj=file))
        else:
            yield from _read_range(stretch, file)


def _read_range(stretch: _Stretch, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    # A line begins at `start` if the byte before ends one.
    before = max(stretch.start - 1, 0)
    file.seek(before)
    data = file.read(stretch.end - before)
    if len(data) < stretch.end - before:
        raise EOFError(f"it ends at byte {before + len(data)}, not {stretch.end}")
    begin = 0 if stretch.start == 0 else data.find(b"\n") + 1
    if stretch.start > 0 and begin == 0:
        return
    if not data.endswith(b"\n"):
        data += _rest_of_line(file, before + len(data))
    if begin < len(data) and before + begin < stretch.end:
        yield before + begin, data[begin:]


def _read_compressed(stretch: _Stretch, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    offset = stretch.start
    file.read(offset)
    while data := file.read(RANGE_BYTES):
        if not data.endswith(b"\n"):
            data += _rest_of_line(file, offset + len(data))
        yield offset, data
        offset += len(data)


def _rest_of_line(file: BinaryIO, offset: int) -> bytes:
    rest = file.readline(MAX_LINE_BYTES)
    if len(rest) == MAX_LINE_BYTES:
        raise ValueError(f"the line at byte {offset} goes on for more than {MAX_LINE_BYTES:,} bytes: not CSV")
    return rest


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Turns whatever goes wrong with a file into an `InputError` that names it."""
    try:
        yield
    except _READ_ERRORS as error:  # type: ignore[misc]  # The stub of isal takes `error` for an instance.
        raise InputError(
            f"{path} cannot be read to its end: {str(error) or type(error).__name__}. "
            "Replace the file, or leave it out, and run again."
        ) from error


def label_rows(parsed: Parsed, lines: bytes, offset: int, config: PipelineConfig) -> Parsed:
    """Puts `label` in the place of the label's column; rows whose label is not in [0, 1] are rejected."""
    rows = parsed.rows
    index = rows.schema.get_field_index(config.label.column)
    labels = make_labels(rows.column(index).to_numpy(), config.label)
    rows = rows.set_column(index, LABEL, pa.array(labels, pa.float32()))
    good = (labels >= 0) & (labels <= 1)
    if good.all():
        return parsed._replace(rows=rows)
    gone = {rejected.offset for rejected in parsed.rejected}
    at, texts = zip(*((at, text) for at, text in split_lines(lines, offset) if at not in gone), strict=True)
    reason = f"{config.label.column}: the label it makes is not in [0, 1]"
    rejected = [Rejected(at[row], reason, texts[row]) for row in np.flatnonzero(~good)]
    return Parsed(rows.filter(pa.array(good)), sorted([*parsed.rejected, *rejected]), parsed.lines)
