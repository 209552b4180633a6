"""Packs rows for a shuffle: Arrow messages, one for each key, whose rows can be put back into the input's order."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

# A piece is the rows of a message that come from one batch: number of the input file, offset of the batch in it (they
# sort as the input does), number of rows. A message ends with its pieces, in the order of its rows, and their number.
_PIECE = np.dtype([("file", "<u8"), ("offset", "<u8"), ("rows", "<u4")])
_COUNT = struct.Struct("<I")
# A shuffle copies its bytes many times or charges for them, and LZ4 is cheap. A message of few rows is mostly header,
# so it is not compressed.
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_FEW_ROWS = 500

Pieces = npt.NDArray[np.void]


def scatter(
    rows: pa.RecordBatch, keys: npt.NDArray[np.integer[Any]], file: int, offset: int, compressed: bool = True
) -> Iterator[tuple[int, bytes]]:
    """Yields (key, message) for each distinct key.

    Args:
        rows: a batch.
        keys: `[rows]`, all >= 0.
        file, offset: the place of the batch in the input.
        compressed: whether to compress the messages, for a shuffle that copies or charges for its bytes.
    """
    yield from _scatter(rows, keys, np.array([(file, offset, len(rows))], _PIECE), compressed)


def scatter_again(
    messages: Iterable[bytes], schema: pa.Schema, key: str, rows_at_once: int
) -> Iterator[tuple[int, bytes]]:
    """Yields (key, message) for the rows of one key's messages, by the finer keys in a column, without that column.

    Messages are taken together until they have `rows_at_once` rows, so few messages leave, however small those that
    arrive are.

    Args:
        messages: from `scatter`, in any order.
        schema: the columns of the messages.
        key: the column of the keys, int32, all >= 0.
        rows_at_once: bounds the memory.
    """
    held: list[tuple[Pieces, pa.RecordBatch]] = []
    num_rows = 0
    for message in messages:
        held.append(_unpack(message, schema))
        num_rows += len(held[-1][1])
        if num_rows >= rows_at_once:
            yield from _scatter_held(held, schema, key)
            held, num_rows = [], 0
    if held:
        yield from _scatter_held(held, schema, key)


def _scatter_held(
    held: list[tuple[Pieces, pa.RecordBatch]], schema: pa.Schema, key: str
) -> Iterator[tuple[int, bytes]]:
    pieces, batches = zip(*held, strict=True)
    (rows,) = pa.Table.from_batches(batches, schema).combine_chunks().to_batches()
    yield from _scatter(rows.drop_columns([key]), rows[key].to_numpy(), np.concatenate(pieces))


def _scatter(
    rows: pa.RecordBatch, keys: npt.NDArray[np.integer[Any]], pieces: Pieces, compressed: bool = True
) -> Iterator[tuple[int, bytes]]:
    # NumPy sorts 16-bit keys with a radix sort, which is faster.
    order = np.argsort(keys.astype(np.uint16) if keys.max(initial=0) < 2**16 else keys, kind="stable")
    rows, keys = rows.take(pa.array(order)), keys[order]
    # The sort is stable, so the rows of a key and a piece stay together.
    piece = np.repeat(np.arange(len(pieces)), pieces["rows"])[order]
    new_key = np.diff(keys, prepend=-1) != 0
    firsts = np.flatnonzero(new_key | (np.diff(piece, prepend=-1) != 0))
    cut = pieces[piece[firsts]]
    cut["rows"] = np.diff(firsts, append=len(keys))
    begins = np.flatnonzero(new_key[firsts])
    for begin, end in itertools.pairwise([*begins.tolist(), len(firsts)]):
        first, of_key = int(firsts[begin]), cut[begin:end]
        yield int(keys[first]), _pack(of_key, rows.slice(first, int(of_key["rows"].sum())), compressed)


def gather(messages: Iterable[bytes], schema: pa.Schema) -> pa.Table:
    """Returns the rows of one key's messages, in the order of the input."""
    unpacked = [_unpack(message, schema) for message in messages]
    if not unpacked:
        return schema.empty_table()
    pieces = np.concatenate([pieces for pieces, _ in unpacked])
    order = np.lexsort([pieces["offset"], pieces["file"]])
    batches = [batch for _, batch in unpacked]
    if len(pieces) == len(batches):
        return pa.Table.from_batches([batches[index] for index in order.tolist()], schema).combine_chunks()
    counts = pieces["rows"].astype(np.int64)
    starts, ordered = np.cumsum(counts) - counts, counts[order]
    # The row that comes to position p is as far from the start of its piece as p is from the piece's new start.
    at = np.repeat(starts[order] - (np.cumsum(ordered) - ordered), ordered) + np.arange(counts.sum())
    return pa.Table.from_batches(batches, schema).combine_chunks().take(pa.array(at))


def _pack(pieces: Pieces, rows: pa.RecordBatch, compressed: bool) -> bytes:
    packed = _compress(rows) if compressed and len(rows) >= _FEW_ROWS else bytes(rows.serialize())
    return packed + pieces.tobytes() + _COUNT.pack(len(pieces))


def _unpack(message: bytes, schema: pa.Schema) -> tuple[Pieces, pa.RecordBatch]:
    (count,) = _COUNT.unpack_from(message, len(message) - _COUNT.size)
    end = len(message) - _COUNT.size - count * _PIECE.itemsize
    pieces = np.frombuffer(message, _PIECE, count, end)
    return pieces, pa.ipc.read_record_batch(pa.py_buffer(message)[:end], schema)


def _compress(rows: pa.RecordBatch) -> bytes:
    """Returns the message as `RecordBatch.serialize` does, but compressed, which that method cannot do."""
    sink = pa.BufferOutputStream()
    writer = pa.ipc.new_stream(sink, rows.schema, options=_COMPRESSED)
    writer.write_batch(rows[:0])
    begin = sink.tell()
    writer.write_batch(rows)
    return bytes(sink.getvalue()[begin:])
