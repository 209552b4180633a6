"""Finds mistakes in how a configuration describes its log, and names the option that helps.

The launcher reads the first rows of the first file, so that a mistake is one line before any job starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

import numpy as np
import numpy.typing as npt

from pipeline.config import PipelineConfig
from pipeline.input.columns import BEYOND_INT64, DATE_AS_TEXT, NOT_ISO
from pipeline.input.csv_files import csv_format, decompressed, split_csv_file
from pipeline.input.parquet_files import open_parquet, split_parquet_file
from pipeline.input.parsing import WRONG_COLUMNS, Parsed, parse_lines, record_ends
from pipeline.input.ranges import LABEL_OUT_OF_RANGE, label_rows
from pipeline.input.typed_columns import parse_columns
from pipeline.manifest import InputFile
from pipeline.storage.files import naming, open_file
from pipeline.storage.paths import InputError

# Enough to see a unit or a type, and read in a moment.
FIRST_BYTES, FIRST_ROWS = 1 << 16, 1000
# Fewer rejected rows say nothing about the others.
FEWEST_REJECTED = 20

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# A log is assumed to be from these years. Row numbers, from 1 on, lie there in no unit and give no warning.
_YEARS = range(1990, 2101)
# A timestamp of another year may have another unit.
_POSSIBLE_YEARS = range(1971, 2200)


def check_first_rows(config: PipelineConfig, files: list[InputFile]) -> None:
    """Reads the first rows of the first file that is not empty, local or remote.

    Raises:
        InputError: the header or schema does not fit the configuration, all rows are rejected for a reason that
            another option would remove, the timestamps have another unit, or no file has rows.
    """
    with_bytes = [file for file in files if file.bytes]
    if not with_bytes:
        raise InputError(no_rows(files))
    parsed = (_first_lines if config.input.format == "csv" else _first_parquet_rows)(with_bytes[0], config)
    if parsed is not None:
        judge(with_bytes[0].path, parsed, config)
    elif len(with_bytes) == 1:
        raise InputError(no_rows(files))


def no_rows(files: Sequence[InputFile]) -> str:
    """Returns the message for an input without rows."""
    others = len(files) - 1
    more = f", and {others:,} other file{'' if others == 1 else 's'}" if others else ""
    return f"the input has no rows: {files[0].path}{more}; {sum(file.bytes for file in files):,} bytes."


def advice(reason: str, config: PipelineConfig) -> str:
    """Returns a sentence with the option that helps against a reason for rejection, or an empty text."""
    column, _, problem = reason.partition(": ")
    if reason == WRONG_COLUMNS and config.input.format == "csv":
        return (
            f"The delimiter is {config.input.delimiter!r}; `pipeline.input.delimiter` sets another. "
            + ("" if config.input.has_header else "Without a header, `pipeline.columns` has to list all columns. ")
        ).rstrip()
    if problem == DATE_AS_TEXT:
        if column == config.timestamp_column:
            return f"Declare {column!r} `string` in `pipeline.columns` and set `pipeline.timestamp_unit: iso`."
        return f"Declare {column!r} `string` in `pipeline.columns`."
    if problem == BEYOND_INT64:
        return f"Declare {column!r} `string` in `pipeline.columns`: an int64 is less than 2^63."
    if problem == NOT_ISO:
        return (
            f"If {column!r} has numbers, declare it `int64` in `pipeline.columns` and set `pipeline.timestamp_unit` to "
            "s, ms, us or ns."
        )
    if problem == LABEL_OUT_OF_RANGE:
        return (
            "`pipeline.label.threshold` makes 1 of values from it on and 0 of others; `pipeline.label.scale: [low, "
            "high]` maps that range to [0, 1]."
        )
    return ""


def shown(timestamp: int, unit: str) -> str:
    """Returns a timestamp as a date and time of UTC, or as a year where a date cannot be written."""
    seconds = timestamp // _PER_SECOND[unit]
    try:
        return f"{datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S}"
    except OverflowError:
        return f"the year {_year(timestamp, unit):,}"


def unit_problem(timestamps: npt.NDArray[np.int64], config: PipelineConfig) -> str | None:
    """Returns what is wrong if the median timestamp is in a plausible year only with another unit, else None."""
    unit = config.timestamp_unit
    if unit == "iso" or not len(timestamps):
        return None
    # The median, so that an outlier does not decide.
    middle = int(np.sort(timestamps)[len(timestamps) // 2])
    if _year(middle, unit) in _POSSIBLE_YEARS:
        return None
    for other in _PER_SECOND:
        if _year(middle, other) in _YEARS:
            return (
                f"{config.timestamp_column} {middle} is {shown(middle, unit)} with `pipeline.timestamp_unit: {unit}`, "
                f"and {shown(middle, other)} with `{other}`. Set `pipeline.timestamp_unit={other}`."
            )
    return None


def _year(timestamp: int, unit: str) -> int:
    return 1970 + int(timestamp / _PER_SECOND[unit] // (365.2425 * 86_400))


def judge(origin: str, parsed: Parsed, config: PipelineConfig) -> None:
    """Raises `InputError`, which names `origin`, if its first rows do not fit the configuration."""
    if config.timestamp_column is not None:
        timestamps = parsed.rows.column(config.timestamp_column).to_numpy()
        if problem := unit_problem(timestamps, config):
            raise InputError(f"{origin}: {problem}")
    labelled = label_rows(parsed, config)
    if len(labelled.rows) or len(labelled.rejected) < FEWEST_REJECTED:
        return
    reason, count = Counter(row.reason for row in labelled.rejected).most_common(1)[0]
    if count == len(labelled.rejected) and (help_ := advice(reason, config)):
        text = labelled.rejected[0].text[:200].decode("utf-8", "backslashreplace")
        raise InputError(f"{origin}: all of the first {count:,} rows are rejected: {reason}, as in {text!r}. {help_}")


def _first_lines(file: InputFile, config: PipelineConfig) -> Parsed | None:
    """Parses the first lines, after a check of the header; None if there are none."""
    file_range = next(split_csv_file(0, file, config), None)
    if file_range is None:
        return None
    with naming(file.path), open_file(file.path) as raw:
        stream, _ = decompressed(raw)
        stream.read(file_range.start)
        data = stream.read(FIRST_BYTES)
    if not data.strip():
        return None
    # The last line may be cut off.
    *_, end = [0, *record_ends(data)] if config.input.newlines_in_values else [data.rfind(b"\n") + 1]
    return parse_lines(data[:end], file_range.start, csv_format(file_range.names, config))


def _first_parquet_rows(file: InputFile, config: PipelineConfig) -> Parsed | None:
    if next(split_parquet_file(0, file, config), None) is None:
        return None
    with open_parquet(file.path) as parquet:
        batch = next(parquet.iter_batches(FIRST_ROWS, row_groups=[0], columns=config.needed_columns), None)
    return None if batch is None else parse_columns(batch, 0, config)
