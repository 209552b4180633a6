"""Tests BigQuery input with a fake of Google's clients: the requests, and the rows made of the responses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from google.api_core.exceptions import NotFound, PermissionDenied

from pipeline.config import PipelineConfig
from pipeline.input import bigquery
from pipeline.input.sources import describe_input, open_source
from pipeline.preprocess import preprocess
from pipeline.storage.paths import InputError

RUNNER = ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]
ROWS = 5000


def log() -> pa.Table:
    draws = np.random.default_rng(5)
    return pa.table(
        {
            "user": pa.array([f"user {n}" for n in draws.integers(0, 50, ROWS)]),
            "item": pa.array(draws.integers(0, 40, ROWS)),
            "rating": pa.array(draws.integers(0, 2, ROWS).astype(float)),
            "time": pa.array(range(ROWS), pa.timestamp("us", "UTC")),
        }
    )


class FakeClients:
    """Serves a table that is divided into streams, each in pages of a hundred rows."""

    def __init__(self, rows: pa.Table, streams: int = 3) -> None:
        self.rows = rows
        self.streams = {f"stream-{n}": rows.take(list(range(n, len(rows), streams))) for n in range(streams)}
        self.sessions: list[Any] = []
        self.queries: list[tuple[str, str]] = []

    def create_read_session(self, parent: str, read_session: Any, max_stream_count: int) -> SimpleNamespace:
        self.sessions.append((parent, read_session.table, list(read_session.read_options.selected_fields)))
        names = self.rows.schema.names
        wanted = self.rows.select([name for name in read_session.read_options.selected_fields if name in names])
        return SimpleNamespace(
            arrow_schema=SimpleNamespace(serialized_schema=wanted.schema.serialize().to_pybytes()),
            streams=[SimpleNamespace(name=name) for name in self.streams],
        )

    def read_rows(self, name: str) -> SimpleNamespace:
        def pages() -> Iterator[SimpleNamespace]:
            for batch in self.streams[name].to_batches(100):
                yield SimpleNamespace(to_arrow=lambda batch=batch: batch)

        return SimpleNamespace(rows=lambda: SimpleNamespace(pages=pages()))

    def get_table(self, name: str) -> SimpleNamespace:
        if name != "project.logs.ratings" and name not in [destination for _, destination in self.queries]:
            raise NotFound(f"Not found: Table {name}")
        return SimpleNamespace(num_bytes=self.rows.nbytes, modified=datetime(2026, 11, 24, tzinfo=timezone.utc))

    def query(self, sql: str, job_config: Any) -> SimpleNamespace:
        if job_config.dry_run:
            schema = [SimpleNamespace(name=name) for name in self.rows.schema.names]
            return SimpleNamespace(schema=schema, total_bytes_processed=10 * self.rows.nbytes)
        self.queries.append((sql, str(job_config.destination)))
        return SimpleNamespace(result=lambda: None)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> FakeClients:
    fake = FakeClients(log())
    monkeypatch.setattr(bigquery, "read_client", lambda: fake)
    monkeypatch.setattr(bigquery, "query_client", lambda project: fake)
    return fake


def config(columns: dict[str, str] | None = None, **source: str) -> PipelineConfig:
    return PipelineConfig.model_validate(
        {
            "input": {"format": "bigquery", **(source or {"table": "project.logs.ratings"})},
            "columns": {"user": "string", "item": "int64", "rating": "float32", "time": "int64", **(columns or {})},
            "label": {"column": "rating"},
            "features": {"user": {"side": "user"}, "item": {"side": "item"}},
            "timestamp_column": "time",
            "timestamp_unit": "us",
            "split": {"method": "time", "eval_fraction": 0.2},
            "rows_per_shard": 1000,
        }
    )


def test_a_table(clients: FakeClients, tmp_path: Path) -> None:
    manifest = preprocess(str(tmp_path / "dataset"), config(), RUNNER)
    # Both passes read the one session, and of the table no more than what is needed.
    assert clients.sessions == [
        ("projects/project", "projects/project/datasets/logs/tables/ratings", ["user", "item", "rating", "time"])
    ]
    assert (manifest.counts.read, manifest.counts.train, manifest.counts.eval) == (ROWS, 4000, 1000)
    assert [file.path for file in manifest.input] == ["bigquery://project.logs.ratings"]
    assert manifest.splits["train"].positive_rows == int(np.sum(clients.rows["rating"].to_numpy()[:4000]))
    # A second start asks for no session.
    assert preprocess(str(tmp_path / "dataset"), config(), RUNNER) == manifest
    assert len(clients.sessions) == 1


def test_a_query(clients: FakeClients, tmp_path: Path) -> None:
    sql = "SELECT user, item, rating, time FROM logs.raw"
    options = config(query=sql, temp_dataset="project.scratch")
    manifest = preprocess(str(tmp_path / "dataset"), options, [*RUNNER, "--project=paying"])
    digest = hashlib.sha256(sql.encode()).hexdigest()
    assert clients.queries == [(sql, f"project.scratch.dotbias_{digest[:16]}")]
    assert clients.sessions[0][:2] == (
        "projects/paying",
        f"projects/project/datasets/scratch/tables/dotbias_{digest[:16]}",
    )
    assert manifest.counts.read == ROWS


def test_the_work_on_a_query_is_divided_by_the_size_of_its_result(clients: FakeClients) -> None:
    options = config(query="SELECT 1", temp_dataset="project.scratch")
    source = open_source(options, describe_input(options, None), None)
    assert source.bytes == clients.rows.nbytes > 0
    # The manifest knows a query by its text, so that a second start finds it.
    assert [file.bytes for file in source.files] == [0]
    table = open_source(config(), describe_input(config(), None), None)
    assert table.bytes == clients.rows.nbytes


def test_a_dry_run_checks_a_query_and_does_not_run_it(clients: FakeClients, tmp_path: Path) -> None:
    options = config(query="SELECT 1", temp_dataset="project.scratch")
    preprocess(str(tmp_path / "dataset"), options, [*RUNNER, "--dry_run=True"])
    assert (clients.queries, clients.sessions) == ([], [])
    clients.rows = clients.rows.rename_columns(["user", "movie", "rating", "time"])
    with pytest.raises(InputError, match=r"the query's result has no column 'item'; it has 'user', 'movie'"):
        preprocess(str(tmp_path / "dataset"), options, [*RUNNER, "--dry_run=True"])
    assert (clients.queries, clients.sessions) == ([], [])


def test_what_the_service_refuses(clients: FakeClients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"BigQuery refuses: 404 Not found: Table project\.logs\.gone"):
        preprocess(str(tmp_path / "dataset"), config(table="project.logs.gone"), RUNNER)

    def refuse(**_: object) -> None:
        raise PermissionDenied("no bigquery.readsessions.create")

    monkeypatch.setattr(clients, "create_read_session", refuse)
    with pytest.raises(InputError, match=r"BigQuery refuses: 403 no bigquery\.readsessions\.create"):
        preprocess(str(tmp_path / "dataset"), config(), RUNNER)


def test_a_table_with_times_in_another_unit(clients: FakeClients, tmp_path: Path) -> None:
    seconds = pa.array(range(1_793_534_400, 1_793_534_400 + ROWS))
    clients.streams = {"stream-0": clients.rows.set_column(3, "time", seconds)}
    with pytest.raises(InputError, match=r"table project\.logs\.ratings: time .* Set `pipeline\.timestamp_unit=s`\."):
        preprocess(str(tmp_path / "dataset"), config(), RUNNER)


def test_a_table_of_another_schema(clients: FakeClients, tmp_path: Path) -> None:
    clients.rows = clients.rows.rename_columns(["user", "movie", "rating", "time"])
    with pytest.raises(InputError, match=r"table project\.logs\.ratings has no column 'item'"):
        preprocess(str(tmp_path / "dataset"), config(), RUNNER)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"table": "a.b.c", "query": "SELECT 1"}, "either `table` or `query`"),
        ({"temp_dataset": "a.b"}, "either `table` or `query`"),
        ({"query": "SELECT 1"}, "give both, or `table` alone"),
        ({"table": "a.b.c", "temp_dataset": "a.b"}, "give both, or `table` alone"),
        ({"table": "a.b.c", "patterns": "x.csv"}, "not files"),
        ({"table": "a.b.c", "delimiter": ";"}, "`delimiter` has no meaning with `format: bigquery`"),
    ],
)
def test_refusals(source: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**source)
