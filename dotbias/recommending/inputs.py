"""Turns an export into the arrays that the workers of the job read: vectors and tokens of users and items.

```
<attempt>/tmp/
  items.npy, items.arrow            vectors `[items, dim]` and tokens of the items, in the order that breaks ties
  items.rows.npy                    table row -> position of the item, -1 for none; not for hashed ids
  users.arrow, users.rows.npy       the same of all users
  users/00000.npy, 00000.arrow      vectors and tokens of a block of users
```
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dotbias.recommending.blocks import Items
from pipeline.manifest import join
from pipeline.storage.files import read_file, write_file

TOKEN_TYPES = {"int64": pa.int64(), "string": pa.large_string()}


@dataclass(frozen=True)
class Side:
    """Describes how the shards name users, or items.

    Attributes:
        name: `users` or `items`, of the files.
        feature: the column.
        dtype: `int64` or `string`, of the tokens.
        hashed: whether the shards hold tokens; else they hold table rows.
        size: number of users or items.
    """

    name: str
    feature: str
    dtype: str
    hashed: bool
    size: int


def write_side(
    directory: str, side: Side, tokens: pa.Array, rows: npt.NDArray[np.int64], known: int | None, table_rows: int
) -> None:
    """Write tokens, and for ids of a vocabulary the position of each table row.

    Args:
        directory: where to write.
        side: users or items.
        tokens: `[size]`.
        rows: the table row of each, `[size]`.
        known: rows from here on are OOV buckets, which name nobody.
        table_rows: of the feature.
    """
    _write(directory, f"{side.name}.arrow", _ipc(tokens))
    if not side.hashed:
        positions = np.full(table_rows, -1, np.int32)
        named = np.flatnonzero(rows < (known or 0))
        positions[rows[named]] = named
        write_array(directory, f"{side.name}.rows.npy", positions)


def write_block(directory: str, block: int, vectors: npt.NDArray[np.float32], tokens: pa.Array) -> None:
    write_array(directory, f"users/{block:05d}.npy", vectors)
    _write(directory, f"users/{block:05d}.arrow", _ipc(tokens))


def read_block(directory: str, block: int) -> tuple[npt.NDArray[np.float32], pa.Array]:
    return read_array(directory, f"users/{block:05d}.npy"), read_tokens(directory, f"users/{block:05d}")


def write_array(directory: str, name: str, values: npt.NDArray[Any]) -> None:
    file = io.BytesIO()
    np.save(file, values)
    _write(directory, name, file.getvalue())


def read_array(directory: str, name: str) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = np.load(io.BytesIO(read_file(join(directory, name))))
    return values


def read_tokens(directory: str, name: str) -> pa.Array:
    with pa.ipc.open_stream(read_file(join(directory, f"{name}.arrow"))) as reader:
        return reader.read_all().column("token").combine_chunks()


def _write(directory: str, name: str, data: bytes) -> None:
    write_file(join(directory, name), data, directory)


def _ipc(tokens: pa.Array) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([("token", tokens.type)])) as writer:
        writer.write_batch(pa.record_batch([tokens], names=["token"]))
    return bytes(sink.getvalue())


# Loaded once per process, so that the threads of a worker share them.
@functools.lru_cache(maxsize=1)
def load_items(directory: str) -> tuple[Items, pa.Array]:
    """Load vectors and tokens of the items."""
    return Items(read_array(directory, "items.npy")), read_tokens(directory, "items")


@functools.lru_cache(maxsize=4)
def _load(directory: str, name: str) -> Any:
    return read_array(directory, name) if name.endswith(".npy") else read_tokens(directory, name)


def positions(directory: str, side: Side, values: pa.Array, as_tokens: bool) -> npt.NDArray[np.int64]:
    """Return the position of the user, or item, of each value: `[values]`, -1 for others.

    Args:
        directory: with the files.
        side: users or items.
        values: table rows, or tokens.
        as_tokens: which of them.
    """
    if not as_tokens:
        found: npt.NDArray[np.int64] = _load(directory, f"{side.name}.rows.npy")[values.to_numpy()].astype(np.int64)
        return found
    at = pc.index_in(values, value_set=_load(directory, side.name))
    return np.asarray(pc.fill_null(at, -1).to_numpy(zero_copy_only=False), np.int64)
