"""Compares shards with their manifest, and finds the row at which they differ."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Sequence

import tensorflow as tf

from pipeline.manifest import Column, DotbiasError
from trainer.data.dataset import Dataset

# `reader.read_batches` raises one of these if a shard differs from the manifest.
READER_ERRORS = (
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
)
_CHUNK = 1 << 22
_AGAIN = "Preprocess again into an empty directory, or copy the dataset again."


def check_shards(data: Dataset, split: str, *, checksums: bool) -> None:
    """Check that the shards of a split exist and have the sizes and, with `checksums`, the CRC-32 of the manifest.

    Raises:
        DotbiasError: a shard is missing or differs; the message names the first one.
    """
    for shard in data.split(split).shards:
        path = data.file(shard.path)
        try:
            size = tf.io.gfile.stat(path).length
        except tf.errors.NotFoundError:
            raise DotbiasError(f"Shard {path} is missing, but the manifest lists it. {_AGAIN}") from None
        if size != shard.bytes:
            raise DotbiasError(f"Shard {path} has {size:,} bytes; the manifest says {shard.bytes:,}. {_AGAIN}")
        if checksums and (crc32 := _crc32(path)) != shard.crc32:
            raise DotbiasError(f"Shard {path} has checksum {crc32:08x}; the manifest says {shard.crc32:08x}. {_AGAIN}")


def _crc32(path: str) -> int:
    value = 0
    with tf.io.gfile.GFile(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return value


def find_fault(data: Dataset, split: str) -> str | None:
    """Return a message that names file and row (1-based) where the reader stopped, None if all rows are good.

    Reads row by row, which is slow, so call it only after a failure.
    """
    for shard in data.split(split).shards:
        path = data.file(shard.path)
        try:
            with tf.io.gfile.GFile(path, "rb") as file:
                compressed = file.read()
            decompressor = zlib.decompressobj(wbits=31)
            text = decompressor.decompress(compressed).decode()
        except (tf.errors.OpError, zlib.error, UnicodeDecodeError) as error:
            return f"{path}: cannot be read ({error}). {_AGAIN}"
        if not decompressor.eof:
            return f"{path}: the gzip file is cut off. {_AGAIN}"
        rows = 0
        for rows, row in enumerate(csv.reader(io.StringIO(text, newline="")), start=1):
            if fault := _row_fault(row, data):
                return f"{path}, row {rows:,}: {fault} {_AGAIN}"
        if rows != shard.rows:
            return f"{path}: it has {rows:,} rows; the manifest says {shard.rows:,}. {_AGAIN}"
    return None


def _row_fault(row: Sequence[str], data: Dataset) -> str | None:
    if len(row) != len(data.manifest.columns):
        return f"{len(row)} columns instead of {len(data.manifest.columns)}."
    for column, text in zip(data.manifest.columns, row, strict=True):
        if rule := _broken_rule(column, text, data):
            return f"column {column.name!r} should be {rule}. Received: {text!r}."
    return None


def _broken_rule(column: Column, text: str, data: Dataset) -> str | None:
    """Return the rule that a field breaks, such as "in [0, 1]", or None."""
    try:
        if column.role == "label":
            return None if 0 <= float(text) <= 1 else "in [0, 1]"
        if column.role == "feature" and column.name not in data.num_bins:
            limit = data.table_rows[column.name]
            return None if 0 <= int(text) < limit else f"in [0, {limit})"
        if column.dtype == "int64":
            return None if -(2**63) <= int(text) < 2**63 else "int64"
    except ValueError:
        return "a number"
    return None
