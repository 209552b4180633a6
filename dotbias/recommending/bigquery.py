"""Loads the lists into a BigQuery table, from the Parquet files that a job has published on gs://."""

from __future__ import annotations

from typing import Any

from google.api_core.exceptions import GoogleAPIError
from google.cloud import bigquery

from pipeline.input.bigquery import query_client
from pipeline.manifest import DotbiasError


def load_lists(table: str, pattern: str, rows: int, project: str | None) -> None:
    """Replace a table by the rows of Parquet files; it changes at once, when all are loaded. A retry does it again.

    Args:
        table: project.dataset.table; made if it is not there.
        pattern: names the files on gs://.
        rows: how many they have.
        project: which pays for the job; None: that of the table.

    Raises:
        DotbiasError: the service refuses, or has loaded another number of rows.
    """
    options = bigquery.LoadJobConfig(
        source_format=bigquery.SourceFormat.PARQUET, write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE
    )
    try:
        client = query_client(project or table.split(".")[0])
        # The client's types do not say that a load job knows its rows.
        done: Any = client.load_table_from_uri(pattern, table, job_config=options).result()
    except GoogleAPIError as error:
        raise DotbiasError(f"{table} cannot be filled from {pattern}: {error}") from error
    if done.output_rows != rows:
        raise DotbiasError(
            f"{table} got {done.output_rows:,} of {rows:,} rows from {pattern}, so something else writes there. "
            "Find out what it is, and rerun."
        )
