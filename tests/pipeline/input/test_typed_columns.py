from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from pipeline.config import PipelineConfig
from pipeline.input import parquet_files
from pipeline.input.columns import ColumnToRead
from pipeline.input.parquet_files import split_parquet_file
from pipeline.input.typed_columns import convert, parse_columns
from pipeline.storage.matching import match_input
from pipeline.storage.paths import InputError

CONFIG = PipelineConfig.model_validate(
    {
        "input": {"format": "parquet"},
        "columns": {"user": "int64", "item": "string", "rating": "float32", "time": "int64"},
        "label": {"column": "rating"},
        "features": {"user": {"side": "user"}, "item": {"side": "item"}},
        "timestamp_column": "time",
    }
)
MOMENT = datetime(2026, 11, 24, 1, 2, 3, 999_999, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("values", "dtype", "unit", "expected"),
    [
        (pa.array([1, None, 2**31 - 1], pa.int32()), "int64", "s", [1, None, 2**31 - 1]),
        (pa.array([1, 2**64 - 1], pa.uint64()), "int64", "s", [1, None]),
        (pa.array([1.0, 2.5, float("nan"), 1e300]), "int64", "s", [1, None, None, None]),
        (pa.array(["7", "x", "", None]), "int64", "s", [7, None, None, None]),
        (pa.array([Decimal("3.50")]), "float32", "s", [3.5]),
        (pa.array([0.1, 4.5]), "float32", "s", [pytest.approx(0.1), 4.5]),
        (pa.array([True, False]), "float32", "s", [1.0, 0.0]),
        (pa.array([12, -3]), "string", "s", ["12", "-3"]),
        (pa.array([b"a", b"\xff"], pa.binary()), "string", "s", ["a", None]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), "string", "s", ["a", "b", "a"]),
        (pa.array(["a"], pa.large_string()), "string", "s", ["a"]),
        # A coarser unit drops what is finer.
        (pa.array([MOMENT], pa.timestamp("us", "UTC")), "int64", "s", [int(MOMENT.timestamp())]),
        (pa.array([MOMENT], pa.timestamp("us", "UTC")), "int64", "ms", [int(MOMENT.timestamp() * 1000)]),
        (pa.array([1, None], pa.timestamp("s")), "int64", "ns", [10**9, None]),
        (pa.array([1], pa.date32()), "int64", "s", [86_400]),
    ],
)
def test_convert(values: pa.Array, dtype: str, unit: str, expected: list[Any]) -> None:
    converted = convert(values, ColumnToRead("x", dtype), unit)  # type: ignore[arg-type]
    assert converted.to_pylist() == expected
    assert converted.type == {"int64": pa.int64(), "float32": pa.float32(), "string": pa.string()}[dtype]


def table(**changes: pa.Array) -> pa.Table:
    columns = {
        "title": pa.array([["nested"]] * 6),
        "time": pa.array(range(6), pa.timestamp("s")),
        "item": pa.array(["a", "b,c", "", None, "e\0", "f\ng"]),
        "user": pa.array([1, 2, 3, 4, 5, 6], pa.int32()),
        "rating": pa.array([0.5, 1.0, 0.5, 0.5, 0.5, 0.5]),
        **changes,
    }
    return pa.table(columns)


def test_a_row_is_converted_or_rejected_with_its_values() -> None:
    batch = table(rating=pa.array([0.5, 1.0, 0.5, 0.5, None, 0.5])).to_batches()[0]
    parsed = parse_columns(batch, 100, CONFIG)
    assert parsed.rows.to_pylist() == [
        {"user": 1, "item": "a", "rating": 0.5, "time": 0},
        {"user": 2, "item": "b,c", "rating": 1.0, "time": 1},
    ]
    assert parsed.places() == [(100, b"1,a,0.5,1970-01-01 00:00:00"), (101, b'2,"b,c",1.0,1970-01-01 00:00:01')]
    assert [(row.offset, row.reason) for row in parsed.rejected] == [
        (102, "item: empty"),
        (103, "item: empty"),
        (104, "item: a NUL byte"),
        (105, "item: a line end"),
    ]
    assert parsed.rejected[2].text == b"5,e\0,,1970-01-01 00:00:04"


OPTIONAL = PipelineConfig.model_validate(
    {
        "input": {"format": "parquet"},
        "columns": {"user": "int64", "country": "string", "age": "int64", "rating": "float32", "time": "string"},
        "label": {"column": "rating"},
        "features": {name: {"side": "user"} for name in ("user", "country", "age")},
        "timestamp_column": "time",
        "timestamp_unit": "iso",
    }
)


@pytest.mark.parametrize(
    "time",
    [
        pa.array(["2026-11-24T01:02:03.5Z"] * 3),
        pa.array(["2026-11-24T01:02:03.5Z"] * 3).dictionary_encode(),
        pa.array([datetime(2026, 11, 24, 1, 2, 3, 500_000)] * 3, pa.timestamp("ms")),
    ],
)
def test_missing_values_and_text_of_a_time(time: pa.Array) -> None:
    country = pa.array(["de", None, ""]).dictionary_encode()
    columns = {"user": [1, 2, None], "age": pa.array(["7", None, ""]), "rating": [1.0] * 3, "time": time}
    parsed = parse_columns(pa.table({**columns, "country": country}).to_batches()[0], 0, OPTIONAL)
    moment = 1_795_482_123_500_000
    assert [tuple(row.values()) for row in parsed.rows.to_pylist()] == [
        (1, "de", 7, 1.0, moment),
        (2, "(missing)", -1, 1.0, moment),
    ]
    assert [row.reason for row in parsed.rejected] == ["user: empty"]


def write(path: Path, rows: pa.Table, **options: int) -> Path:
    pa.parquet.write_table(rows, path, **options)
    return path


def test_row_groups_have_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_files, "ROWS_PER_BLOCK", 2)
    users = table(user=pa.array(range(6)), item=pa.array(list("abcdef")))
    (file,) = match_input([str(write(tmp_path / "log.parquet", users, row_group_size=4))])
    groups = list(split_parquet_file(7, file, CONFIG))
    assert [(group.file, group.index, group.first) for group in groups] == [(7, 0, 0), (7, 1, 4)]
    blocks = [parse() for group in groups for parse in group.blocks(CONFIG)]
    users_at = [(offset, parsed.rows["user"].to_pylist()) for offset, parsed in blocks]
    assert users_at == [
        (0, [0, 1]),
        (2, [2, 3]),
        (4, [4, 5]),
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (table().drop_columns("item"), "has no column 'item'; it has 'title', 'time', 'user', 'rating'."),
        (
            table(user=pa.array([[1]] * 6)),
            "column 'user' is list<.*>, which cannot become int64, as `pipeline.columns` asks",
        ),
    ],
)
def test_another_schema(tmp_path: Path, rows: pa.Table, message: str) -> None:
    (file,) = match_input([str(write(tmp_path / "log.parquet", rows))])
    with pytest.raises(InputError, match=rf"log\.parquet:? ?{message}|log\.parquet {message}"):
        list(split_parquet_file(0, file, CONFIG))


@pytest.mark.parametrize("content", [b"", b"PAR1" * 10])
def test_not_a_parquet_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.parquet"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"log\.parquet cannot be read to its end: .*[Pp]arquet"):
        list(split_parquet_file(0, match_input([str(path)])[0], CONFIG))


def test_a_file_cut_short(tmp_path: Path) -> None:
    path = write(tmp_path / "log.parquet", table())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"log\.parquet cannot be read to its end"):
        list(split_parquet_file(0, match_input([str(path)])[0], CONFIG))
