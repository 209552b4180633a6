"""Reads BigQuery tables and queries by the Storage Read API, as Arrow record batches from the streams of a session.

All passes over the input read one session, and a stream yields the same rows in the same order each time. Another
session may divide the rows among streams in another way.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
from google.api_core.exceptions import GoogleAPIError
from google.cloud import bigquery, bigquery_storage

from pipeline.config import InputConfig, PipelineConfig
from pipeline.input.mistakes import judge
from pipeline.input.parsing import Block
from pipeline.input.typed_columns import check_names, check_schema, parse_columns
from pipeline.manifest import InputFile
from pipeline.storage.paths import InputError

# The service gives fewer for a small table.
MAX_STREAMS = 1000
# Pages of a stream are small, so they are joined to blocks of this size.
ROWS_PER_BLOCK = 1 << 18


@dataclass(frozen=True)
class TableStream:
    """Names stream number `file` of a read session."""

    file: int
    name: str

    def blocks(self, config: PipelineConfig) -> Iterator[Callable[[], Block]]:
        """Yields calls that convert a block of rows; its offset is the number of its first row in the stream."""
        offset, held, rows = 0, list[pa.RecordBatch](), 0
        for page in read_client().read_rows(self.name).rows().pages:
            held.append(page.to_arrow())
            rows += len(held[-1])
            if rows >= ROWS_PER_BLOCK:
                yield functools.partial(_parse_pages, held, offset, config)
                offset, held, rows = offset + rows, [], 0
        if rows:
            yield functools.partial(_parse_pages, held, offset, config)


def _parse_pages(pages: list[pa.RecordBatch], offset: int, config: PipelineConfig) -> Block:
    return offset, parse_columns(pa.Table.from_batches(pages).combine_chunks().to_batches()[0], offset, config)


def describe_table(config: InputConfig, project: str | None) -> InputFile:
    """Describes the table for the manifest: name, size and time of modification; a query by the hash of its text.

    Raises:
        InputError: the table does not exist, or may not be read.
    """
    if config.table is None:
        assert config.query is not None
        name = hashlib.sha256(config.query.encode()).hexdigest()
        return InputFile(path=f"bigquery://query/{name}", bytes=0, modified=0)
    return describe_table_named(config.table, project)


def describe_table_named(name: str, project: str | None) -> InputFile:
    """Describes a table, as `describe_table` does."""
    table = _ask(lambda: query_client(project).get_table(name))
    return InputFile(path=f"bigquery://{name}", bytes=table.num_bytes, modified=table.modified.timestamp())


def read_column(table: str, column: str, project: str | None) -> pa.ChunkedArray:
    """Reads a column of a table, in no order.

    Raises:
        InputError: the service refuses, or the table lacks the column.
    """
    session = _ask(lambda: _begin_session(table, [column], project))
    schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
    if column not in schema.names:
        raise InputError(f"table {table} has no column {column!r}; it has {', '.join(schema.names)}")
    pages = _ask(
        lambda: [
            page.to_arrow().column(column)
            for stream in session.streams
            for page in read_client().read_rows(stream.name).rows().pages
        ]
    )
    return pa.chunked_array(pages, schema.field(column).type)


class Session(NamedTuple):
    """Names the streams of a read session; `query_bytes` is the size of a query's result, 0 for a table."""

    streams: list[TableStream]
    query_bytes: int


def check_query(config: PipelineConfig, project: str | None) -> Session:
    """Has BigQuery check a query without running it, and checks the columns of its result. There are no streams.

    Raises:
        InputError: the service refuses the query, or its result lacks a column.
    """
    query = config.input.query
    assert query is not None
    job = _ask(lambda: query_client(project).query(query, job_config=bigquery.QueryJobConfig(dry_run=True)))
    check_names("the query's result", [field.name for field in job.schema or []], config)
    return Session([], job.total_bytes_processed)


def open_session(config: PipelineConfig, project: str | None) -> Session:
    """Begins a read session over the needed columns and names its streams; a query is run first.

    Raises:
        InputError: the service refuses, the table lacks a column, or its first rows do not fit the configuration.
    """
    table = _ask(lambda: _run_query(config.input, project)) if config.input.query is not None else config.input.table
    assert table is not None
    query_bytes = 0 if config.input.query is None else _ask(lambda: query_client(project).get_table(table)).num_bytes
    session = _ask(lambda: _begin_session(table, config.needed_columns, project))
    check_schema(f"table {table}", pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema)), config)
    streams = [TableStream(number, stream.name) for number, stream in enumerate(session.streams)]
    _ask(lambda: _check_first_rows(table, streams, config))
    return Session(streams, query_bytes)


def _check_first_rows(table: str, streams: list[TableStream], config: PipelineConfig) -> None:
    """Raises `InputError` if the first page of the table does not fit the configuration."""
    pages = (page for stream in streams[:1] for page in read_client().read_rows(stream.name).rows().pages)
    if (first := next(pages, None)) is not None:
        judge(f"table {table}", parse_columns(first.to_arrow(), 0, config), config)


def _begin_session(table: str, columns: list[str], project: str | None) -> Any:
    table_project, dataset, name = _split_name(table)
    return read_client().create_read_session(
        parent=f"projects/{project or table_project}",
        read_session=bigquery_storage.ReadSession(
            table=f"projects/{table_project}/datasets/{dataset}/tables/{name}",
            data_format=bigquery_storage.DataFormat.ARROW,
            read_options={"selected_fields": columns},
        ),
        max_stream_count=MAX_STREAMS,
    )


def _run_query(config: InputConfig, project: str | None) -> str:
    """Runs the query into the temporary dataset; its table has the query's hash as its name."""
    assert config.query is not None and config.temp_dataset is not None
    table = f"{config.temp_dataset}.dotbias_{hashlib.sha256(config.query.encode()).hexdigest()[:16]}"
    destination = bigquery.QueryJobConfig(destination=table, write_disposition="WRITE_TRUNCATE")
    query_client(project).query(config.query, job_config=destination).result()
    return table


def _split_name(table: str) -> tuple[str, str, str]:
    names = tuple(table.split("."))
    if len(names) != 3:
        raise InputError(f"`pipeline.input.table` should be project.dataset.table. Received: {table!r}")
    return names


def _ask(call: Callable[[], Any]) -> Any:
    """Calls the service; raises `InputError` with the message of the service if it refuses."""
    try:
        return call()
    except GoogleAPIError as error:
        raise InputError(f"BigQuery refuses: {error}") from error


def read_client() -> bigquery_storage.BigQueryReadClient:
    return bigquery_storage.BigQueryReadClient()


def query_client(project: str | None) -> bigquery.Client:
    return bigquery.Client(project=project)
