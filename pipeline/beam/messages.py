"""Packs rows for a shuffle: one Arrow message for each key and batch, which can be put back into the input's order."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

# Number of the input file and offset of the batch in it; they sort as the input does.
_PLACE = struct.Struct(">QQ")
# A shuffle copies its bytes many times, keeps them in memory or charges for them, and LZ4 is cheap. A message of few
# rows is mostly header, so it is not compressed.
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_FEW_ROWS = 500


def scatter(
    rows: pa.RecordBatch, keys: npt.NDArray[np.integer[Any]], file: int, offset: int
) -> Iterator[tuple[int, bytes]]:
    """Yields (key, message) for each distinct key.

    Args:
        rows: a batch.
        keys: `[rows]`, all >= 0.
        file, offset: the place of the batch in the input.
    """
    # NumPy sorts 16-bit keys with a radix sort, which is faster.
    order = np.argsort(keys.astype(np.uint16) if keys.max(initial=0) < 2**16 else keys, kind="stable")
    rows, keys = rows.take(pa.array(order)), keys[order]
    for start, end in itertools.pairwise([*np.flatnonzero(np.diff(keys, prepend=-1)), len(keys)]):
        yield int(keys[start]), _PLACE.pack(file, offset) + _serialize(rows[start:end])


def _serialize(rows: pa.RecordBatch) -> bytes:
    """Returns the message as `RecordBatch.serialize` does, but compressed, which that method cannot do."""
    if len(rows) < _FEW_ROWS:
        return bytes(rows.serialize())
    sink = pa.BufferOutputStream()
    writer = pa.ipc.new_stream(sink, rows.schema, options=_COMPRESSED)
    writer.write_batch(rows[:0])
    begin = sink.tell()
    writer.write_batch(rows)
    return bytes(sink.getvalue()[begin:])


def gather(messages: Iterable[bytes], schema: pa.Schema) -> pa.Table:
    """Returns the rows of one key's messages, in the order of the input."""
    placed = sorted((message[: _PLACE.size], message) for message in messages)
    batches = [pa.ipc.read_record_batch(pa.py_buffer(message)[_PLACE.size :], schema) for _, message in placed]
    return pa.Table.from_batches(batches, schema).combine_chunks()
