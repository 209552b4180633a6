"""Describes the columns to read, and converts values that CSV, Parquet and BigQuery have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import PipelineConfig
from pipeline.manifest import DType

ARROW_TYPES: dict[DType, pa.DataType] = {"int64": pa.int64(), "float32": pa.float32(), "string": pa.string()}
# Tokens of empty values; a client of the export asks with the same. The empty text cannot be one, because TensorFlow
# refuses an empty line in a vocabulary file.
MISSING_TOKENS: dict[DType, str | int] = {"int64": -1, "string": "(missing)"}

NOT_A_NUMBER: dict[DType, str] = {"int64": "not an int64", "float32": "not a number", "string": "not UTF-8"}
BEYOND_INT64 = "an integer beyond 64 bits"
DATE_AS_TEXT = "a date as text, not an int64"
NOT_ISO = "not a date or time of ISO 8601"
EMPTY = "empty"

_DATE_AS_TEXT = r"^\s*[0-9]{4}-[0-9]{2}-[0-9]{2}"
_BEYOND_INT64 = r"^\s*-?[0-9]{19,}\s*$"
# Spellings beside Arrow's: spaces around, lower case, "UTC", a space before the offset, a comma before the fraction.
_OTHER_SPELLINGS = (
    (r"^\s+|\s+$", ""),
    (r"[tT]", "T"),
    (r"(?i) ?(z|utc|gmt)$", "Z"),
    (r" ([+-][0-9]{2}:?([0-9]{2})?)$", r"\1"),
    (r"(:[0-9]{2}),([0-9]+)", r"\1.\2"),
    # Microseconds are kept.
    (r"(\.[0-9]{6})[0-9]+", r"\1"),
)
_ZONE = r"[T ].*(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"


class ColumnToRead(NamedTuple):
    """Describes a column: its type, whether an empty value is a token, and whether it is a time written as text."""

    name: str
    dtype: DType
    may_be_missing: bool = False
    is_iso: bool = False

    @property
    def arrow_type(self) -> pa.DataType:
        """Returns the type of its converted values."""
        return pa.int64() if self.is_iso else ARROW_TYPES[self.dtype]


def columns_to_read(config: PipelineConfig) -> tuple[ColumnToRead, ...]:
    """Lists the needed columns in the order in which batches have them."""
    return tuple(
        ColumnToRead(
            name,
            config.columns[name],
            name in config.features and config.missing_is_a_token(name),
            name == config.timestamp_column and config.timestamp_unit == "iso",
        )
        for name in config.needed_columns
    )


def parse_iso(texts: pa.Array) -> pa.Array:
    """Converts text in ISO 8601 to int64 microseconds since 1970; null where the text is not a time.

    Reads `2026-11-01T12:00:00Z`, also with a space for the T, an offset, a fraction, or the date alone. A time without
    an offset is UTC.
    """
    for dtype in (pa.timestamp("us", "UTC"), pa.timestamp("us")):
        try:
            return texts.cast(dtype).cast(pa.int64())
        except pa.ArrowInvalid:
            continue
    # Only a log that mixes spellings, or has one that Arrow does not read, pays for the slower way.
    for pattern, replacement in _OTHER_SPELLINGS:
        texts = pc.replace_substring_regex(texts, pattern, replacement)
    has_zone = pc.match_substring_regex(texts, _ZONE)
    zoned, local = (
        cast_or_null(pc.if_else(mask, texts, None), dtype).cast(pa.int64())
        for mask, dtype in ((has_zone, pa.timestamp("us", "UTC")), (pc.invert(has_zone), pa.timestamp("us")))
    )
    return pc.coalesce(zoned, local)


def number_problems(texts: pa.Array, numbers: pa.Array, dtype: DType) -> Iterator[tuple[str, pa.BooleanArray]]:
    """Yields each reason why some `texts` are not numbers, with a mask of these."""
    failed = numbers.is_null()
    if dtype == "int64":
        for reason, pattern in ((DATE_AS_TEXT, _DATE_AS_TEXT), (BEYOND_INT64, _BEYOND_INT64)):
            yield reason, pc.and_(failed, pc.fill_null(pc.match_substring_regex(texts, pattern), False))
    yield NOT_A_NUMBER[dtype], failed


def token_problems(tokens: pa.StringArray) -> Iterator[tuple[str, pa.BooleanArray]]:
    """Yields each problem of some tokens, with a mask of these: a vocabulary file has one token per line."""
    yield EMPTY, pc.fill_null(pc.equal(tokens, ""), False)
    yield "a NUL byte", pc.fill_null(pc.match_substring(tokens, "\0"), False)
    yield "a line end", pc.fill_null(pc.match_substring_regex(tokens, "[\r\n]"), False)


def cast_or_null(values: pa.Array, dtype: pa.DataType) -> pa.Array:
    """Casts values; one that does not fit becomes null. It is found by halving, since Arrow's cast fails as a whole."""
    try:
        return values.cast(dtype)
    except pa.ArrowInvalid:
        if len(values) == 1:
            return pa.nulls(1, dtype)
        half = len(values) // 2
        return pa.concat_arrays([cast_or_null(values[:half], dtype), cast_or_null(values[half:], dtype)])
