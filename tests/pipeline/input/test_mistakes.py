"""Checks that a mistake in a log's description is found in its first rows, with the option that helps."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from pipeline.config import PipelineConfig
from pipeline.input.mistakes import check_first_rows, shown, unit_problem
from pipeline.storage.matching import match_input
from pipeline.storage.paths import InputError

HEADER = "user,item,rating,time\n"
SECONDS = 1_793_534_400


def config(**changes: Any) -> PipelineConfig:
    fields: dict[str, Any] = {
        "columns": {"user": "int64", "item": "string", "rating": "float32", "time": "int64"},
        "label": {"column": "rating"},
        "features": {"user": {"side": "user"}, "item": {"side": "item"}},
        "timestamp_column": "time",
    }
    return PipelineConfig.model_validate({**fields, **changes})


def rows(user: object = 1, item: str = "a", rating: object = 1, time: object = SECONDS, count: int = 50) -> str:
    return f"{user},{item},{rating},{time}\n" * count


def check(path: Path, content: str, options: PipelineConfig) -> None:
    path.write_text(content)
    check_first_rows(options, match_input([str(path)]))


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        ((HEADER + rows()).replace(",", ";"), {}, "Its delimiter seems to be ';': set `pipeline.input.delimiter=';'`."),
        ((HEADER + rows()).replace(",", "\t"), {}, r"Its delimiter seems to be '\t'"),
        ("User,item,rating,time\n" + rows(), {}, "It has 'User': write that name"),
        ("who,item,rating,time\n" + rows(), {}, "has no column 'user'"),
        (rows(count=60).replace(",", ";"), {"input": {"has_header": False}}, "`pipeline.input.delimiter` sets another"),
        (HEADER + rows(rating=4), {}, "`pipeline.label.threshold` makes 1 of values from it on"),
        (HEADER + rows(user=2**63), {}, "Declare 'user' `string` in `pipeline.columns`: an int64 is less than 2^63."),
        (
            HEADER + rows(time="2026-11-01T12:00:00Z"),
            {},
            "Declare 'time' `string` in `pipeline.columns` and set `pipeline.timestamp_unit: iso`.",
        ),
        (
            HEADER + rows(),
            {
                "columns": {"user": "int64", "item": "string", "rating": "float32", "time": "string"},
                "timestamp_unit": "iso",
            },
            "If 'time' has numbers, declare it `int64` in `pipeline.columns` and set `pipeline.timestamp_unit` to s",
        ),
        (
            HEADER + rows(time=SECONDS * 1000),
            {},
            "with `pipeline.timestamp_unit: s`, and 2026-11-01 12:00:00 with `ms`. Set `pipeline.timestamp_unit=ms`.",
        ),
        (
            HEADER + rows(time=SECONDS * 1000),
            {"input": {"newlines_in_values": True}},
            "Set `pipeline.timestamp_unit=ms`.",
        ),
        (
            HEADER + rows(),
            {"timestamp_unit": "ms"},
            f"time {SECONDS} is 1970-01-21 18:12:14 with `pipeline.timestamp_unit: ms`, and 2026-11-01 12:00:00 with "
            "`s`. Set `pipeline.timestamp_unit=s`.",
        ),
    ],
)
def test_the_option_that_helps(tmp_path: Path, content: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as error:
        check(tmp_path / "log.csv", content, config(**changes))
    assert "log.csv" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        HEADER + rows(),
        HEADER.replace(",", ", ") + rows(),
        # The first rows may be bad within `max_rejected_fraction`.
        HEADER + rows(rating=4, count=30) + rows(),
        HEADER + rows(rating=4, count=19),
        # Row numbers are not timestamps in another unit, and a single wrong timestamp does not decide.
        HEADER + "".join(rows(time=time, count=1) for time in range(100)),
        HEADER + rows(time=10**15, count=5) + rows(),
        # The bytes that are read end within a line.
        HEADER + rows(item="i" * 50, count=5000),
    ],
)
def test_logs_without_a_mistake(tmp_path: Path, content: str) -> None:
    check(tmp_path / "log.csv", content, config())
    (tmp_path / "log.csv").write_bytes(gzip.compress(content.encode()))
    check_first_rows(config(), match_input([str(tmp_path / "log.csv")]))


def test_the_first_file_that_is_not_empty_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    (tmp_path / "b.csv").write_text("who,item,rating,time\n")
    with pytest.raises(InputError, match=r"b\.csv: the header has no column 'user'"):
        check_first_rows(config(), match_input([str(tmp_path / "*.csv")]))


@pytest.mark.parametrize("content", ["", "\n", HEADER, HEADER + "\n\n", HEADER.strip()])
def test_files_without_rows(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").touch()
    (tmp_path / "b.csv").write_text(content)
    with pytest.raises(InputError, match=r"the input has no rows: .*a\.csv, and 1 other file; \d+ bytes\."):
        check_first_rows(config(), match_input([str(tmp_path / "*.csv")]))
    # A single row without a line end is a row.
    check(tmp_path / "b.csv", (HEADER + rows(count=1)).strip(), config())


def test_the_format_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    columns = {"user": [2], "item": ["a"], "rating": [1.0], "time": [SECONDS * 10**6]}
    pa.parquet.write_table(pa.table(columns), path)
    with pytest.raises(InputError, match=r"log is a Parquet file; set `pipeline\.input\.format=parquet`"):
        check_first_rows(config(), match_input([str(path)]))
    parquet = config(input={"format": "parquet"})
    with pytest.raises(InputError, match=r"2026-11-01 12:00:00 with `us`"):
        check_first_rows(parquet, match_input([str(path)]))
    with pytest.raises(InputError, match=r"log is not a Parquet file\. If it is CSV, set"):
        check(path, HEADER + rows(), parquet)


@pytest.mark.parametrize(("factor", "unit"), [(1, "s"), (10**3, "ms"), (10**6, "us"), (10**9, "ns")])
@pytest.mark.parametrize("given", ["s", "ms", "us", "ns"])
def test_every_unit_taken_for_every_other(factor: int, unit: str, given: str) -> None:
    problem = unit_problem(np.array([SECONDS * factor]), config(timestamp_unit=given))
    assert (problem is None) == (unit == given)
    assert problem is None or problem.endswith(f"`pipeline.timestamp_unit={unit}`.")


def test_shown() -> None:
    assert shown(0, "s") == "1970-01-01 00:00:00"
    assert shown(-1, "ms") == "1969-12-31 23:59:59"
    assert re.fullmatch(r"the year 146,1\d\d,\d\d\d,\d\d\d", shown(2**62, "s"))
