"""Converts columns that already have types (Parquet, BigQuery) to rows and rejected rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import PipelineConfig, stored_unit
from pipeline.input.columns import (
    EMPTY,
    MISSING_TOKENS,
    NOT_A_NUMBER,
    NOT_ISO,
    ColumnToRead,
    cast_or_null,
    columns_to_read,
    number_problems,
    parse_iso,
    token_problems,
)
from pipeline.input.parsing import Parsed, Rejected
from pipeline.storage.paths import InputError


def check_schema(origin: str, schema: pa.Schema, config: PipelineConfig) -> None:
    """Raises `InputError` unless `schema` has all needed columns, in types that can be converted."""
    check_names(origin, schema.names, config)
    for column in columns_to_read(config):
        dtype = schema.field(column.name).type
        if column.is_iso and pa.types.is_integer(dtype):
            raise InputError(
                f"{origin}: column {column.name!r} is {dtype}, not text: declare it `int64` in `pipeline.columns`, and "
                "set `pipeline.timestamp_unit` to s, ms, us or ns."
            )
        try:
            convert(pa.array([], dtype), column, config.timestamp_unit)
        except pa.ArrowNotImplementedError:
            raise InputError(
                f"{origin}: column {column.name!r} is {dtype}, which cannot become {column.dtype}, "
                "as `pipeline.columns` asks."
            ) from None


def check_names(origin: str, names: Sequence[str], config: PipelineConfig) -> None:
    """Raises `InputError` unless all needed columns are among `names`."""
    for name in config.needed_columns:
        if name not in names:
            raise InputError(f"{origin} has no column {name!r}; it has {_listed(names)}.")


def _listed(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(map(repr, names[:most])) + (", ..." if len(names) > most else "")


def parse_columns(batch: pa.RecordBatch, offset: int, config: PipelineConfig) -> Parsed:
    """Converts the needed columns; a row with a null or a value that does not fit is rejected.

    `offset` is the number of the batch's first row. The text of a rejected row is its needed values as CSV.
    """
    reasons: dict[int, str] = {}
    columns = []
    for column in columns_to_read(config):
        values = batch.column(column.name)
        converted = convert(values, column, config.timestamp_unit)
        if column.may_be_missing:
            converted = pc.if_else(_is_missing(values), MISSING_TOKENS[column.dtype], converted)
        else:
            _note(reasons, values.is_null(), f"{column.name}: {EMPTY}")
        for problem, bad in _problems(values, converted, column):
            _note(reasons, bad, f"{column.name}: {problem}")
        columns.append(converted)
    rows = pa.RecordBatch.from_arrays(columns, names=config.needed_columns)
    good = [index for index in range(len(rows)) if index not in reasons] if reasons else range(len(rows))
    bad = sorted(reasons)
    rejected = [
        Rejected(offset + index, reasons[index], text)
        for index, text in zip(bad, texts(batch, bad, config), strict=True)
    ]
    return Parsed(
        rows.take(pa.array(good, pa.int64())) if reasons else rows,
        rejected,
        lambda: list(zip([offset + index for index in good], texts(batch, good, config), strict=True)),
    )


def _is_missing(values: pa.Array) -> pa.BooleanArray:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return pc.fill_null(pc.equal(values, ""), True)
    return values.is_null()


def _problems(values: pa.Array, converted: pa.Array, column: ColumnToRead) -> Iterator[tuple[str, pa.BooleanArray]]:
    """Yields reasons to reject rows, with a mask of those that have them."""
    if column.is_iso:
        yield NOT_ISO, converted.is_null()
    elif column.dtype == "string":
        yield NOT_A_NUMBER["string"], converted.is_null()
        yield from token_problems(converted)
    elif converted.null_count:
        yield from number_problems(cast_or_null(values, pa.string()), converted, column.dtype)


def convert(values: pa.Array, column: ColumnToRead, timestamp_unit: str) -> pa.Array:
    """Converts `values` to the type of `pipeline.columns`; a value that does not fit becomes null."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_date(values.type):
        values = values.cast(pa.timestamp("s"))
    if pa.types.is_timestamp(values.type) and column.arrow_type == pa.int64():
        # A coarser unit drops the fraction.
        return values.cast(pa.timestamp(stored_unit(timestamp_unit), values.type.tz), safe=False).cast(pa.int64())
    if column.is_iso:
        return parse_iso(cast_or_null(values, pa.string()))
    if column.dtype == "float32":
        # From float64 it rounds; `safe` would refuse that for integers only.
        return cast_or_null(values, pa.float32())
    return cast_or_null(values, column.arrow_type)


def texts(batch: pa.RecordBatch, indices: Sequence[int], config: PipelineConfig) -> list[bytes]:
    """Writes the needed values of some rows as lines of CSV."""
    taken = batch.select(config.needed_columns).take(pa.array(indices, pa.int64()))
    lines = []
    for values in zip(*(column.to_pylist() for column in taken.columns), strict=True):
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(["" if value is None else value for value in values])
        lines.append(text.getvalue().encode("utf-8", "surrogateescape"))
    return lines


def _note(reasons: dict[int, str], bad: pa.BooleanArray, reason: str) -> None:
    if pc.any(bad).as_py():
        for index in np.flatnonzero(bad.to_numpy(zero_copy_only=False)):
            reasons.setdefault(int(index), reason)
