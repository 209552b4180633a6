"""Users from a table of BigQuery and lists into one, with fakes of its services."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from dotbias.recommending import bigquery as loading
from pipeline.input import bigquery
from tests.dotbias.recommending.conftest import Make
from tests.dotbias.recommending.test_recommend import answer, files, lists, run, train_items
from tests.trainer.output.test_recommend import SIDES

pytestmark = pytest.mark.usefixtures("small_blocks")


class FakeBigQuery:
    """A table of users in two streams of pages, and load jobs that are written down."""

    def __init__(self, users: pa.Array) -> None:
        self.deal(users)
        self.loaded_rows = 0
        self.loads: list[tuple[Any, ...]] = []

    def deal(self, users: pa.Array) -> None:
        self.streams = {"a": users[::2], "b": users[1::2]}

    def get_table(self, name: str) -> SimpleNamespace:
        assert name == "project.crm.users"
        return SimpleNamespace(num_bytes=1, modified=datetime(2026, 11, 24, tzinfo=timezone.utc))

    def create_read_session(self, parent: str, read_session: Any, max_stream_count: int) -> SimpleNamespace:
        assert (parent, read_session.table) == ("projects/project", "projects/project/datasets/crm/tables/users")
        schema = pa.schema([(name, self.streams["a"].type) for name in read_session.read_options.selected_fields])
        return SimpleNamespace(
            arrow_schema=SimpleNamespace(serialized_schema=schema.serialize().to_pybytes()),
            streams=[SimpleNamespace(name=name) for name in self.streams],
        )

    def read_rows(self, name: str) -> SimpleNamespace:
        pages = pa.table({"userId": self.streams[name]}).to_batches(1)
        return SimpleNamespace(
            rows=lambda: SimpleNamespace(pages=[SimpleNamespace(to_arrow=lambda page=page: page) for page in pages])
        )

    def load_table_from_uri(self, pattern: str, table: str, job_config: Any) -> SimpleNamespace:
        self.loads.append((pattern, table, job_config.write_disposition, job_config.source_format))
        return SimpleNamespace(result=lambda: SimpleNamespace(output_rows=self.loaded_rows))


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> FakeBigQuery:
    fake = FakeBigQuery(pa.array([], pa.int64()))
    monkeypatch.setattr(bigquery, "read_client", lambda: fake)
    for module in (bigquery, loading):
        monkeypatch.setattr(module, "query_client", lambda project: fake)
    return fake


def test_users_of_a_table(make: Make, tmp_path: Path, service: FakeBigQuery) -> None:
    exported = make(tmp_path, SIDES, False)
    users = [int(token) for token in exported.vocabulary("userId")[:3]]
    service.deal(pa.array([users[2], users[0], None, users[0], users[1]]))
    made, _ = run(tmp_path, users_table="project.crm.users")
    users.sort()
    without = [one & set(exported.items()) for one in train_items(exported, users)]
    assert lists(tmp_path, made) == answer(exported, users, without, 5)
    assert list(lists(tmp_path, made)) == users
    assert [file.path for file in made.files["users"]] == ["bigquery://project.crm.users"]


def test_lists_go_to_a_table(make: Make, tmp_path: Path, service: FakeBigQuery) -> None:
    make(tmp_path, SIDES, False)
    with pytest.raises(Exception, match=r"project.out.lists got 0 of \d+ rows"):
        run(tmp_path, table="project.out.lists")
    # Without the description nobody takes them for complete, so the next start loads them.
    assert "recommendations.json" not in files(tmp_path)
    service.loaded_rows = sum(len(rows) for rows in lists_in(tmp_path))
    made, ran = run(tmp_path, table="project.out.lists")
    assert ran and made.table == "project.out.lists" and made.rows == service.loaded_rows
    pattern = f"{tmp_path}/recommendations/lists/*.parquet"
    assert service.loads == [(pattern, "project.out.lists", "WRITE_TRUNCATE", "PARQUET")] * 2
    assert not run(tmp_path, table="project.out.lists")[1] and len(service.loads) == 2


def lists_in(directory: Path) -> list[pa.Table]:
    return [pyarrow.parquet.read_table(path) for path in (directory / "recommendations" / "lists").iterdir()]
