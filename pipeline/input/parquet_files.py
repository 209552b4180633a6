"""Reads the row groups of Parquet files, only the needed columns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet

from pipeline.config import PipelineConfig
from pipeline.input.csv_files import PARQUET_MAGIC
from pipeline.input.parsing import Block
from pipeline.input.typed_columns import check_schema, parse_columns
from pipeline.manifest import InputFile
from pipeline.storage.files import EXACT, naming, open_file
from pipeline.storage.paths import InputError

# About as many as a range of a CSV file has.
ROWS_PER_BLOCK = 1 << 18


@dataclass(frozen=True)
class RowGroup:
    """Names a row group of a file. `first` is the number of its first row in the file."""

    file: int
    path: str
    index: int
    first: int

    def blocks(self, config: PipelineConfig) -> Iterator[Callable[[], Block]]:
        """Yields calls that convert a block of rows; its offset is the number of its first row."""
        offset = self.first
        with open_parquet(self.path) as file:
            for batch in file.iter_batches(ROWS_PER_BLOCK, row_groups=[self.index], columns=config.needed_columns):
                yield functools.partial(_parse, offset, batch, config)
                offset += len(batch)


@contextmanager
def open_parquet(path: str) -> Iterator[pyarrow.parquet.ParquetFile]:
    """Opens a Parquet file; of a file on a store, only the footer and the columns that are read are fetched.

    Raises:
        InputError: the file, or what is read of it while it is open, is not whole.
    """
    with naming(path), open_file(path, EXACT) as raw, pyarrow.parquet.ParquetFile(raw) as file:
        yield file


def _parse(offset: int, batch: pa.RecordBatch, config: PipelineConfig) -> Block:
    return offset, parse_columns(batch, offset, config)


def split_parquet_file(number: int, file: InputFile, config: PipelineConfig) -> Iterator[RowGroup]:
    """Lists the row groups of a file.

    Raises:
        InputError: it is not a Parquet file, lacks a column, or a column's type cannot be converted.
    """
    with naming(file.path), open_file(file.path, EXACT) as raw:
        beginning = raw.read(len(PARQUET_MAGIC))
    if beginning and beginning != PARQUET_MAGIC:
        raise InputError(f"{file.path} is not a Parquet file. If it is CSV, set `pipeline.input.format=csv`.")
    with open_parquet(file.path) as parquet:
        schema, metadata = parquet.schema_arrow, parquet.metadata
        groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    check_schema(file.path, schema, config)
    first = 0
    for index, rows in enumerate(groups):
        yield RowGroup(number, file.path, index, first)
        first += rows
