"""Reads which users to recommend to: a list, a Parquet file or a BigQuery table."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from dotbias.recommending.inputs import TOKEN_TYPES
from pipeline.input.bigquery import read_column
from pipeline.manifest import DotbiasError
from pipeline.storage.files import naming, read_file
from trainer.output.catalogue import Tokens, read_list


def users_of_file(path: str, column: str, dtype: str) -> Tokens:
    """Read distinct ids in the order of the file: the column of a file that ends in .parquet, else one id a line.

    Raises:
        DotbiasError: the file cannot be read, has no id, or one that is not of the type.
    """
    if not path.endswith(".parquet"):
        return read_list(path, dtype, "--users")
    with naming(path):
        try:
            table = pyarrow.parquet.ParquetFile(pa.BufferReader(read_file(path))).read(columns=[column])
        except pa.ArrowException as error:
            raise ValueError(str(error)) from error
    if column not in table.schema.names:
        raise DotbiasError(f"--users: {path} has no column {column!r}, which is the name of the users' ids.")
    return _tokens(table.column(column), dtype, f"--users: {path}")


def users_of_table(table: str, column: str, dtype: str, project: str | None) -> Tokens:
    """Read distinct ids of a BigQuery table, sorted: its rows have no order.

    Raises:
        DotbiasError: the table cannot be read, lacks the column, has no id, or ids of another type.
    """
    values = read_column(table, column, project)
    tokens = _tokens(values, dtype, f"--users_table: {table}")
    tokens.sort()
    return tokens


def _tokens(values: pa.ChunkedArray, dtype: str, origin: str) -> Tokens:
    try:
        typed = values.cast(TOKEN_TYPES[dtype]) if pa.types.is_integer(values.type) == (dtype == "int64") else None
    except pa.ArrowInvalid:
        typed = None
    if typed is None:
        raise DotbiasError(f"{origin}: ids should be {dtype}, as the model's are. Received: {values.type}.")
    distinct = pc.unique(typed.drop_null().combine_chunks())
    if not len(distinct):
        raise DotbiasError(f"{origin} has no id.")
    if dtype == "int64":
        return distinct.to_numpy().copy()
    return distinct.cast(pa.large_binary()).to_numpy(zero_copy_only=False)
