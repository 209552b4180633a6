"""Parquet files, as slices of row groups; only the columns that are needed are read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet

from pipeline.config import PipelineConfig
from pipeline.input.parsing import Block
from pipeline.input.typed_columns import check_schema, parse_columns
from pipeline.manifest import InputFile
from pipeline.storage.files import naming, open_file

# Rows that are converted and handed on at a time, about as many as a range of a CSV file has.
ROWS_PER_BLOCK = 1 << 18


@dataclass(frozen=True)
class RowGroup:
    """A row group of a file; its first row has the number `first` in the file."""

    file: int
    path: str
    index: int
    first: int

    def blocks(self, config: PipelineConfig) -> Iterator[Callable[[], Block]]:
        """Calls that convert rows; their offset is the number of the first."""
        offset = self.first
        with naming(self.path), open_file(self.path) as raw, pyarrow.parquet.ParquetFile(raw) as file:
            for batch in file.iter_batches(ROWS_PER_BLOCK, row_groups=[self.index], columns=config.needed_columns):
                yield functools.partial(_parse, offset, batch, config)
                offset += len(batch)


def _parse(offset: int, batch: pa.RecordBatch, config: PipelineConfig) -> Block:
    return offset, parse_columns(batch, offset, config)


def split_parquet_file(number: int, file: InputFile, config: PipelineConfig) -> Iterator[RowGroup]:
    """The row groups of the input's file of that number.

    Raises:
        InputError: it is not a Parquet file, or lacks a column, or has one of a type that cannot be converted.
    """
    with naming(file.path), open_file(file.path) as raw, pyarrow.parquet.ParquetFile(raw) as parquet:
        schema, metadata = parquet.schema_arrow, parquet.metadata
        groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    check_schema(file.path, schema, config)
    first = 0
    for index, rows in enumerate(groups):
        yield RowGroup(number, file.path, index, first)
        first += rows
