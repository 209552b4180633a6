"""Cuts CSV files, plain or compressed, into ranges of lines that are read independently."""

from __future__ import annotations

import bz2
import csv
import functools
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
from isal import igzip

from pipeline.config import PipelineConfig
from pipeline.input.columns import columns_to_read
from pipeline.input.parsing import BOM, Block, CsvFormat, parse_lines, record_ends
from pipeline.manifest import InputFile
from pipeline.storage.files import BEGINNING, STREAM, naming, open_file
from pipeline.storage.paths import InputError

# About 300,000 rows of a ratings file. Larger ranges are slower: they do not fit the processor's caches.
RANGE_BYTES = 8 << 20
# A longer line means a binary file, or one with other line ends.
MAX_LINE_BYTES = 16 << 20

PARQUET_MAGIC = b"PAR1"

# By the first bytes of a file; the name does not matter.
_DECOMPRESSORS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda raw: igzip.IGzipFile(fileobj=raw),
    b"BZh": bz2.BZ2File,
    b"\x28\xb5\x2f\xfd": lambda raw: io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")),
}


@dataclass(frozen=True)
class CsvRange:
    """Names the lines of a file that begin in [start, end), in bytes; all lines from `start` on if `end` is None."""

    file: int
    path: str
    start: int
    end: int | None
    names: tuple[str, ...]

    def blocks(self, config: PipelineConfig) -> Iterator[Callable[[], Block | None]]:
        """Yields calls that parse a block. If `end` is given, the call reads the bytes too."""
        form = csv_format(self.names, config)
        if self.end is not None:
            yield functools.partial(_parse_range, self, form)
            return
        for offset, lines in read_lines(self, config.input.newlines_in_values):
            yield functools.partial(_parse, offset, lines, form)


def csv_format(names: tuple[str, ...], config: PipelineConfig) -> CsvFormat:
    """Describes the lines of a file with columns of these names."""
    return CsvFormat(names, columns_to_read(config), config.input.delimiter, config.input.newlines_in_values)


def _parse_range(csv_range: CsvRange, form: CsvFormat) -> Block | None:
    for offset, lines in read_lines(csv_range):
        return _parse(offset, lines, form)
    return None


def _parse(offset: int, lines: bytes, form: CsvFormat) -> Block:
    return offset, parse_lines(lines, offset, form)


def split_csv_file(number: int, file: InputFile, config: PipelineConfig) -> Iterator[CsvRange]:
    """Cuts a file into ranges. A compressed file, or one with line ends in values, stays whole.

    Raises:
        InputError: the file cannot be read, or its header lacks a column.
    """
    names, start = tuple(config.columns), 0
    with naming(file.path), open_file(file.path) as raw:
        if raw.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC:
            raise InputError(f"{file.path} is a Parquet file; set `pipeline.input.format=parquet`.")
        raw.seek(0)
        stream, compressed = decompressed(raw)
        if config.input.has_header:
            names, start = read_header(file.path, stream, config)
    if compressed or config.input.newlines_in_values:
        yield CsvRange(number, file.path, start, None, names)
        return
    for begin in range(0, file.bytes, RANGE_BYTES):
        end = min(begin + RANGE_BYTES, file.bytes)
        if end > start:
            yield CsvRange(number, file.path, max(begin, start), end, names)


def decompressed(raw: BinaryIO) -> tuple[BinaryIO, bool]:
    """Returns the decompressed content of a file that is at its beginning, and whether it was compressed."""
    beginning = raw.read(max(map(len, _DECOMPRESSORS)))
    raw.seek(0)
    for magic, decompressor in _DECOMPRESSORS.items():
        if beginning.startswith(magic):
            return decompressor(raw), True
    return raw, False


def read_header(path: str, file: BinaryIO, config: PipelineConfig) -> tuple[tuple[str, ...], int]:
    """Returns the column names from the first line that is not empty, and the offset of the next line."""
    start = 0
    for line in iter(lambda: file.readline(MAX_LINE_BYTES), b""):
        text = (line if start else line.removeprefix(BOM)).rstrip(b"\r\n")
        start += len(line)
        if text:
            return _names_in_header(path, text, config), start
    # An empty file needs no header.
    return tuple(config.columns), start


def _names_in_header(path: str, line: bytes, config: PipelineConfig) -> tuple[str, ...]:
    try:
        text = line.decode()
        written = next(csv.reader([text], delimiter=config.input.delimiter))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: the header is not UTF-8 ({error.reason} at byte {error.start}). Convert it to CSV in UTF-8, or "
            "set `pipeline.input.format` if it has another format."
        ) from None
    except csv.Error as error:
        raise InputError(f"{path}: the header is not a line of CSV ({error}). It begins: {text[:200]!r}.") from None
    # A feature cannot have spaces around its name, so a header may.
    names = tuple(name if name in config.columns or name.strip() in written else name.strip() for name in written)
    for name in config.needed_columns:
        if names.count(name) != 1:
            problem = "has no column" if name not in names else "has more than one column"
            raise InputError(
                f"{path}: the header {problem} {name!r}. It reads: {text[:200]!r}. {_header_advice(name, text, names)}"
            )
    return names


def _header_advice(missing: str, text: str, names: tuple[str, ...]) -> str:
    """Says which option helps against a header without a column."""
    for delimiter in ";\t|,":
        if missing in (field.strip(' "') for field in text.split(delimiter)) and missing not in map(str.strip, names):
            return f"Its delimiter seems to be {delimiter!r}: set `pipeline.input.delimiter={delimiter!r}`."
    for name in names:
        if name.strip().lower() == missing.strip().lower() and name != missing:
            return f"It has {name!r}: write that name, capitals included, in `pipeline.columns`."
    return "Correct `pipeline.columns`, or set `pipeline.input.has_header=false` if there is no header."


def read_lines(csv_range: CsvRange, newlines_in_values: bool = False) -> Iterator[tuple[int, bytes]]:
    """Yields (offset, whole lines) of a range: together, all lines that begin in it.

    Raises:
        InputError: the file cannot be read or decompressed to its end, or a line is longer than `MAX_LINE_BYTES`.
    """
    # One request fetches a range and the rest of its last line.
    fetch_bytes = STREAM if csv_range.end is None else csv_range.end - csv_range.start + BEGINNING
    with naming(csv_range.path), open_file(csv_range.path, fetch_bytes) as raw:
        if csv_range.end is not None:
            yield from _read_range(csv_range, csv_range.end, raw)
        elif newlines_in_values:
            yield from _read_records(csv_range, decompressed(raw)[0])
        else:
            yield from _read_whole(csv_range, decompressed(raw)[0])


def _read_range(csv_range: CsvRange, end: int, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    # A line begins at `start` if the byte before it is a line end.
    before = max(csv_range.start - 1, 0)
    file.seek(before)
    data = file.read(end - before)
    if len(data) < end - before:
        raise EOFError(f"it ends at byte {before + len(data)}, not {end}")
    begin = 0 if csv_range.start == 0 else data.find(b"\n") + 1
    if csv_range.start > 0 and begin == 0:
        return
    if not data.endswith(b"\n"):
        data += _rest_of_line(file, before + len(data))
    if begin < len(data) and before + begin < end:
        yield before + begin, data[begin:]


def _read_whole(csv_range: CsvRange, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    offset = csv_range.start
    file.read(offset)
    while data := file.read(RANGE_BYTES):
        if not data.endswith(b"\n"):
            data += _rest_of_line(file, offset + len(data))
        yield offset, data
        offset += len(data)


def _read_records(csv_range: CsvRange, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Cuts only at line ends outside quotes."""
    offset, held = csv_range.start, b""
    file.read(offset)
    while data := file.read(RANGE_BYTES):
        held += data
        if len(held) > MAX_LINE_BYTES + RANGE_BYTES:
            raise ValueError(f"the record at byte {offset} goes on for more than {MAX_LINE_BYTES:,} bytes: not CSV")
        ends = record_ends(held)
        if len(ends):
            yield offset, held[: ends[-1]]
            offset, held = offset + int(ends[-1]), held[ends[-1] :]
    if held:
        yield offset, held


def _rest_of_line(file: BinaryIO, offset: int) -> bytes:
    rest = file.readline(MAX_LINE_BYTES)
    if len(rest) == MAX_LINE_BYTES:
        raise ValueError(f"the line at byte {offset} goes on for more than {MAX_LINE_BYTES:,} bytes: not CSV")
    return rest
