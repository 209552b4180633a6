"""Parses bytes of CSV into typed rows and rejected rows. Pure functions over whole lines; no Beam.

A line ends with "\\n", or "\\r\\n". Each non-empty line is one row. Arrow parses a whole block of lines at once. If
that does not yield one good row per line, the lines are parsed again one by one, so a bad row rejects only itself.
Both ways accept the same rows, because the neighbours of a row decide which way it is parsed.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipeline.input.columns import (
    EMPTY,
    MISSING_TOKENS,
    NOT_ISO,
    ColumnToRead,
    cast_or_null,
    number_problems,
    parse_iso,
    token_problems,
)
from pipeline.manifest import DType

BOM = b"\xef\xbb\xbf"
# Bytes that Arrow parses at a time; more do not fit the processor's cache.
ARROW_BLOCK_BYTES = 1 << 20
# Lines around a bad line that are parsed one by one, which is ten times slower.
CAREFUL_BYTES = 1 << 16

# Texts that Arrow may accept as a number. This filter saves a failed cast per row for a column of another type.
_NUMBERS: dict[DType, str] = {
    "int64": r"^(-?0*[0-9]{1,19}|0[xX]0*[0-9a-fA-F]{1,16})$",
    "float32": r"^[-+]?(?i:[0-9]+\.?[0-9]*(e[-+]?[0-9]+)?|\.[0-9]+(e[-+]?[0-9]+)?|inf(inity)?|nan(\([0-9a-z_]*\))?)$",
}

# Arrow's rules: a quote at the start of a field opens it, and a single quote closes it.
_FIELD = r'(?:"[^"]*(?:""[^"]*)*"(?:[^"DELIMITER\r\n][^DELIMITER\r\n]*)?|[^"DELIMITER\r\n][^DELIMITER\r\n]*|)'
_LINE_OF_CLOSED_QUOTES = f"{_FIELD}(?:DELIMITER{_FIELD})*"

WRONG_COLUMNS = "wrong number of columns"
UNBALANCED_QUOTE = "a quote that is not closed in its line"
CARRIAGE_RETURN = "a carriage return within the line"


class Rejected(NamedTuple):
    """Holds a row that does not enter the dataset; `offset` is that of its first byte in the (decompressed) file."""

    offset: int
    reason: str
    text: bytes


class Parsed(NamedTuple):
    """Holds parsed rows. `places()` returns (offset, text) of each of `rows`, for rows that are rejected later."""

    rows: pa.RecordBatch
    rejected: list[Rejected]
    places: Callable[[], list[tuple[int, bytes]]]


# Offset of the first row, in bytes or rows of the file, and the rows that were parsed at once.
Block: TypeAlias = tuple[int, Parsed]


@dataclass(frozen=True)
class CsvFormat:
    """Describes the lines of a file: the names of its columns in order, and the columns to read."""

    names: tuple[str, ...]
    columns: tuple[ColumnToRead, ...]
    delimiter: str = ","
    newlines_in_values: bool = False

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([(column.name, column.arrow_type) for column in self.columns])


def parse_lines(data: bytes, offset: int, form: CsvFormat) -> Parsed:
    """Parses whole lines of a file.

    Args:
        data: the lines; the last one may lack its line end.
        offset: where `data` begins in the file. A byte-order mark is dropped at offset 0 only.
        form: the columns of the file.
    """
    data, offset = _without_bom(data, offset)
    rows = _parse_at_once(data, form)
    if rows is not None:
        return Parsed(rows, [], lambda: list(split_lines(data, offset, form.newlines_in_values)))
    cuts = list(_cut_lines(data, offset, form)) if len(data) > CAREFUL_BYTES else []
    if len(cuts) > 1:
        return _joined([parse_lines(lines, at, form) for at, lines in cuts], form)
    return _parse_line_by_line(data, offset, form)


def split_lines(data: bytes, offset: int, newlines_in_values: bool = False) -> Iterator[tuple[int, bytes]]:
    """Yields offset and text (without the line end) of each non-empty line."""
    if newlines_in_values:
        ends = record_ends(data).tolist()
        lines = [data[begin : end - 1] for begin, end in zip([0, *ends], ends, strict=False)]
        lines.append(data[ends[-1] if ends else 0 :])
    else:
        lines = data.split(b"\n")
    for line in lines:
        if text := line.removesuffix(b"\r"):
            yield offset, text
        offset += len(line) + 1


def record_ends(data: bytes) -> npt.NDArray[np.int64]:
    """Returns the positions after line ends outside quotes: those with an even number of quotes before them."""
    characters = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(characters == ord("\n"))
    quotes = np.flatnonzero(characters == ord('"'))
    return ends[np.searchsorted(quotes, ends) % 2 == 0] + 1


def _cut_lines(data: bytes, offset: int, form: CsvFormat) -> Iterator[tuple[int, bytes]]:
    """Yields about eight groups of whole lines, with their offsets."""
    ends = record_ends(data) if form.newlines_in_values else np.flatnonzero(np.frombuffer(data, np.uint8) == 10) + 1
    goals = np.linspace(0, ends.max(initial=0), 8, endpoint=False)[1:]
    cuts = np.unique([0, *ends[np.searchsorted(ends, goals)], len(data)]) if len(ends) else np.array([0, len(data)])
    for start, end in itertools.pairwise(cuts):
        yield offset + int(start), data[start:end]


def _joined(cuts: Sequence[Parsed], form: CsvFormat) -> Parsed:
    rows = pa.Table.from_batches([cut.rows for cut in cuts], form.schema)
    rejected = [rejected for cut in cuts for rejected in cut.rejected]
    return Parsed(_one_batch(rows), rejected, lambda: [place for cut in cuts for place in cut.places()])


def _without_bom(data: bytes, offset: int) -> tuple[bytes, int]:
    return (data[len(BOM) :], len(BOM)) if offset == 0 and data.startswith(BOM) else (data, offset)


def _read_csv(
    data: bytes,
    names: Sequence[str],
    types: Sequence[tuple[str, pa.DataType]],
    form: CsvFormat,
    *,
    block_size: int,
    on_invalid_row: object = None,
) -> pa.Table:
    return pyarrow.csv.read_csv(
        pa.BufferReader(data),
        # Arrow numbers invalid rows only without threads.
        read_options=pyarrow.csv.ReadOptions(
            column_names=names, use_threads=on_invalid_row is None, block_size=block_size
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=form.delimiter,
            newlines_in_values=form.newlines_in_values,
            invalid_row_handler=on_invalid_row,
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict(types),
            include_columns=[name for name, _ in types],
            null_values=[""],
            strings_can_be_null=True,
        ),
    )


def _parse_at_once(data: bytes, form: CsvFormat) -> pa.RecordBatch | None:
    """Parses all lines at once; returns None unless each line is a good row."""
    # NumPy counts line ends five times as fast as `bytes.count` and lets other threads run meanwhile.
    ends = (
        len(record_ends(data))
        if form.newlines_in_values
        else np.count_nonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    )
    lines = ends + (not data.endswith(b"\n"))
    # The last line of the data may lack its line end.
    *_, start = [0, *record_ends(data[:-1])] if form.newlines_in_values else [data.rfind(b"\n", 0, -1) + 1]
    last_line = data[start:].rstrip(b"\r\n")
    if (
        b"\0" in data
        # Arrow ends a row at a lone carriage return, and drops a byte-order mark at the start of any data.
        or (b"\r" in data and data.count(b"\r") != data.count(b"\r\n"))
        or data.startswith(BOM)
        # An open quote at the end continues in lines that are not in `data`.
        or not _quotes_are_closed(last_line, form)
    ):
        return None
    try:
        types = [(column.name, pa.string() if column.is_iso else column.arrow_type) for column in form.columns]
        table = _read_csv(data, form.names, types, form, block_size=ARROW_BLOCK_BYTES)
    except pa.ArrowInvalid:
        return None
    # Without lone carriage returns a line never becomes two rows, so equal counts mean one row per line.
    if table.num_rows != lines:
        return None
    values = [_all_good(table[column.name].combine_chunks(), column, form) for column in form.columns]
    return None if any(value is None for value in values) else pa.RecordBatch.from_arrays(values, schema=form.schema)


def _all_good(values: pa.Array, column: ColumnToRead, form: CsvFormat) -> pa.Array | None:
    """Completes the conversion of a column; returns None if a value is not good."""
    if column.may_be_missing and values.null_count:
        values = pc.fill_null(values, MISSING_TOKENS[column.dtype])
    if column.is_iso:
        values = parse_iso(values)
    elif form.newlines_in_values and column.dtype == "string":
        # Only quotes that span lines bring line ends into a token.
        return None if pc.any(pc.match_substring_regex(values, "[\r\n]")).as_py() else values
    return None if values.null_count else values


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([column.combine_chunks() for column in table.columns], schema=table.schema)


def _parse_line_by_line(data: bytes, offset: int, form: CsvFormat) -> Parsed:
    """Parses line by line: each line becomes a row or gets a reason for its rejection."""
    offsets, lines = [], []
    for at, line in split_lines(data, offset, form.newlines_in_values):
        offsets.append(at)
        lines.append(line)
    reasons: dict[int, str] = {}
    for index, line in enumerate(lines):
        if b"\r" in line and not (form.newlines_in_values and b'"' in line):
            reasons[index] = CARRIAGE_RETURN
        elif not _quotes_are_closed(line, form):
            reasons[index] = UNBALANCED_QUOTE
    indices = [index for index in range(len(lines)) if index not in reasons]
    fields, indices = _split_fields(lines, indices, form, reasons)
    columns = [_convert(fields[column.name].combine_chunks(), column, indices, reasons) for column in form.columns]
    good = pa.array([index not in reasons for index in indices], pa.bool_())
    rows = pa.RecordBatch.from_arrays(columns, schema=form.schema).filter(good)
    rejected = [Rejected(offsets[index], reasons[index], lines[index]) for index in sorted(reasons)]
    kept_places = [(offsets[index], lines[index]) for index in indices if index not in reasons]
    return Parsed(rows, rejected, lambda: kept_places)


def _split_fields(
    lines: Sequence[bytes], indices: Sequence[int], form: CsvFormat, reasons: dict[int, str]
) -> tuple[pa.Table, list[int]]:
    """Returns the fields to read of `lines[indices]` as bytes, and their indices; other lines go to `reasons`."""
    # By number, because a column that is not read may have a name twice.
    types = [(str(number), pa.binary()) for number in range(len(form.names))]
    skipped: set[int] = set()

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        skipped.add(row.number - 1)
        return "skip"

    # The empty line in front keeps Arrow from dropping a byte-order mark.
    text = b"\n" + b"".join(lines[index] + b"\n" for index in indices)
    is_utf8 = _is_utf8(text)
    if not is_utf8:
        # Arrow passes skipped rows as UTF-8 text only, so other bytes travel as Latin-1 characters.
        text = text.decode("latin-1").encode()
    # One block accepts lines of any length.
    names = [name for name, _ in types]
    table = _read_csv(text, names, types, form, block_size=len(text), on_invalid_row=skip)
    assert len(table) + len(skipped) == len(indices), "a line is one row, good or not"
    reasons.update((indices[position], WRONG_COLUMNS) for position in skipped)
    wanted = [column.name for column in form.columns]
    table = table.select([form.names.index(name) for name in wanted]).rename_columns(wanted)
    kept = [index for position, index in enumerate(indices) if position not in skipped]
    return (table if is_utf8 else _from_latin_1(table)), kept


def _quotes_are_closed(line: bytes, form: CsvFormat) -> bool:
    return b'"' not in line or bool(_closed_quotes(form.delimiter).fullmatch(line))


@functools.cache
def _closed_quotes(delimiter: str) -> re.Pattern[bytes]:
    return re.compile(_LINE_OF_CLOSED_QUOTES.replace("DELIMITER", re.escape(delimiter)).encode())


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _from_latin_1(table: pa.Table) -> pa.Table:
    """Undoes the Latin-1 detour of `_split_fields`."""

    def undo(value: bytes | None) -> bytes | None:
        return None if value is None else value.decode().encode("latin-1")

    columns = [pa.array([undo(value) for value in column.to_pylist()], pa.binary()) for column in table.columns]
    return pa.table(columns, table.column_names)


def _convert(values: pa.BinaryArray, column: ColumnToRead, indices: Sequence[int], reasons: dict[int, str]) -> pa.Array:
    """Converts `values`, null where that fails. The first problem of a line becomes its reason."""

    def reject(bad: pa.BooleanArray, reason: str) -> None:
        for position in np.flatnonzero(bad.to_numpy(zero_copy_only=False)):
            reasons.setdefault(indices[int(position)], f"{column.name}: {reason}")

    if column.may_be_missing:
        values = pc.fill_null(values, str(MISSING_TOKENS[column.dtype]).encode())
    reject(values.is_null(), EMPTY)
    strings = _decode(values)
    reject(strings.is_null(), "not UTF-8")
    if column.is_iso:
        times = parse_iso(strings)
        reject(times.is_null(), NOT_ISO)
        return times
    if column.dtype == "string":
        for problem, bad in token_problems(strings):
            reject(bad, problem)
        return strings
    # Arrow's CSV reader trims numbers too.
    numbers = cast_or_null(_only_matching(pc.utf8_trim(strings, " \t"), _NUMBERS[column.dtype]), column.arrow_type)
    for problem, bad in number_problems(strings, numbers, column.dtype):
        reject(bad, problem)
    return numbers


def _decode(values: pa.BinaryArray) -> pa.StringArray:
    """Decodes UTF-8; other bytes become null."""

    def decode(value: bytes | None) -> str | None:
        try:
            return None if value is None else value.decode()
        except UnicodeDecodeError:
            return None

    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([decode(value) for value in values.to_pylist()], pa.string())


def _only_matching(strings: pa.StringArray, pattern: str) -> pa.StringArray:
    return pc.if_else(pc.match_substring_regex(strings, pattern), strings, None)
