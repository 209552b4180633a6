"""Converts columns that already have types (Parquet, BigQuery) to rows and rejected rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import PipelineConfig
from pipeline.input.parsing import ARROW_TYPES, Parsed, Rejected, cast_or_null, token_problems
from pipeline.storage.paths import InputError


def check_schema(origin: str, schema: pa.Schema, config: PipelineConfig) -> None:
    """Raises `InputError` unless `schema` has all needed columns, in types that can be converted."""
    for name in config.needed_columns:
        if name not in schema.names:
            raise InputError(f"{origin} has no column {name!r}; it has {_listed(schema.names)}.")
        dtype = schema.field(name).type
        try:
            convert(pa.array([], dtype), config.columns[name], config.timestamp_unit)
        except pa.ArrowNotImplementedError:
            raise InputError(
                f"{origin}: column {name!r} is {dtype}, which cannot become {config.columns[name]}, "
                "as `pipeline.columns` asks."
            ) from None


def _listed(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(map(repr, names[:most])) + (", ..." if len(names) > most else "")


def parse_columns(batch: pa.RecordBatch, offset: int, config: PipelineConfig) -> Parsed:
    """Converts the needed columns; a row with a null or a value that does not fit is rejected.

    `offset` is the number of the batch's first row. The text of a rejected row is its needed values as CSV.
    """
    reasons: dict[int, str] = {}
    columns = []
    for name in config.needed_columns:
        values = batch.column(name)
        converted = convert(values, config.columns[name], config.timestamp_unit)
        _note(reasons, values.is_null(), f"{name}: empty")
        _note(reasons, converted.is_null(), f"{name}: not {_called(config.columns[name])}")
        if config.columns[name] == "string":
            for problem, bad in token_problems(converted):
                _note(reasons, bad, f"{name}: {problem}")
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


def convert(values: pa.Array, dtype: str, timestamp_unit: str) -> pa.Array:
    """Converts `values` to the type of `pipeline.columns`; a value that does not fit becomes null."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_date(values.type):
        values = values.cast(pa.timestamp("s"))
    if pa.types.is_timestamp(values.type) and dtype == "int64":
        # A coarser unit drops the fraction.
        return values.cast(pa.timestamp(timestamp_unit, values.type.tz), safe=False).cast(pa.int64())
    if dtype == "float32":
        # From float64 it rounds; `safe` would refuse that for integers only.
        return cast_or_null(values, pa.float32())
    return cast_or_null(values, ARROW_TYPES[dtype])  # type: ignore[index]


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


def _called(dtype: str) -> str:
    return {"int64": "an int64", "float32": "a number", "string": "UTF-8"}[dtype]
