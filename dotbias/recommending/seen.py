"""Reads which items users have already: train rows from the shards of a dataset, and files of pairs."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from dotbias.recommending.inputs import TOKEN_TYPES, Side, positions
from dotbias.recommending.results import Excluded
from pipeline.manifest import DatasetManifest, DotbiasError
from pipeline.storage.files import naming, read_file

_PARQUET = ".parquet"


@dataclass(frozen=True)
class SeenFile:
    """Names a file with pairs of users and items.

    Attributes:
        path: where it is; Parquet if it ends in .parquet, else CSV, decompressed if it ends in .gz.
        columns: names in the order of the file without a header; None: the file has a header.
        rows: how many it should have; None if unknown.
    """

    path: str
    columns: tuple[str, ...] | None = None
    rows: int | None = None


def shards_of(manifest: DatasetManifest, dataset: str, splits: Sequence[str]) -> list[SeenFile]:
    """Name the shards of splits."""
    columns = tuple(column.name for column in manifest.columns)
    shards = [shard for split in splits for shard in manifest.splits[split].shards]
    return [SeenFile(f"{dataset}/{shard.path}", columns, shard.rows) for shard in shards]


def read_pairs(
    file: SeenFile, users: Side, items: Side, directory: str, block: int
) -> tuple[Excluded, Iterator[tuple[int, bytes]]]:
    """Read a file; return its counts and, for each block of `block` users, a message for `unpack`.

    Raises:
        DotbiasError: the file cannot be read, lacks a column, or holds something else than ids.
    """
    is_shard = file.columns is not None
    types = {}
    for side in (users, items):
        types[side.feature] = pa.int32() if is_shard and not side.hashed else TOKEN_TYPES[side.dtype]
    try:
        table = _read_table(file, types)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise DotbiasError(
            f"{file.path} should be a {'Parquet' if file.path.endswith(_PARQUET) else 'CSV'} file with the columns "
            f"{users.feature} ({users.dtype}) and {items.feature} ({items.dtype}): {error}"
        ) from None
    if file.rows is not None and len(table) != file.rows:
        raise DotbiasError(
            f"{file.path} has {len(table):,} rows; the manifest says {file.rows:,}. "
            "Preprocess again into an empty directory, or copy the dataset again."
        )
    user, item = (
        positions(directory, side, table.column(side.feature).combine_chunks(), not is_shard or side.hashed)
        for side in (users, items)
    )
    used = np.flatnonzero((user >= 0) & (item >= 0))
    return Excluded(rows=len(table), used=len(used)), _messages(user[used], item[used], block)


def _read_table(file: SeenFile, types: Mapping[str, pa.DataType]) -> pa.Table:
    """Read the columns in `types`."""
    data = read_file(file.path)
    if file.path.endswith(_PARQUET):
        table = pyarrow.parquet.ParquetFile(pa.BufferReader(data)).read(columns=list(types))
        if missing := set(types) - set(table.schema.names):
            raise pa.ArrowKeyError(f"it has no {' and no '.join(sorted(missing))}")
        # An id that is missing names nobody.
        return table.select(list(types)).cast(pa.schema(types.items())).drop_null()
    if file.path.endswith(".gz"):
        with naming(file.path):
            try:
                data = zlib.decompress(data, wbits=31)
            except zlib.error as error:
                raise ValueError(str(error)) from error
    return pyarrow.csv.read_csv(
        pa.BufferReader(data),
        read_options=pyarrow.csv.ReadOptions(column_names=file.columns),
        # Quoted fields of a log may hold line ends.
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=types, include_columns=list(types), strings_can_be_null=False
        ),
    )


def _messages(user: npt.NDArray[np.int64], item: npt.NDArray[np.int64], size: int) -> Iterator[tuple[int, bytes]]:
    order = np.argsort(user // size, kind="stable")
    user, item = user[order], item[order]
    blocks, starts = np.unique(user // size, return_index=True)
    for block, start, end in zip(blocks.tolist(), starts, [*starts[1:], len(user)], strict=True):
        yield block, np.stack([user[start:end] - block * size, item[start:end]]).astype(np.int32).tobytes()


def unpack(messages: list[bytes]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the positions of users in their block and of items, `[pairs]` each."""
    pairs = [np.frombuffer(message, np.int32).reshape(2, -1) for message in messages]
    user, item = np.concatenate([np.zeros((2, 0), np.int32), *pairs], axis=1).astype(np.int64)
    return user, item
