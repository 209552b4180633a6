"""Runs the stages `recommend` and `export` by the real command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.dotbias.evaluation.conftest import make_run

ROOT = Path(__file__).resolve().parents[4]
FLAGS = ("--config", "sample", "--run_id", "night")


def command(directory: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "run_pipeline.py"), *flags], cwd=directory, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("recommend")
    make_run(directory / "out" / "runs" / "night")
    return directory


@pytest.mark.slow
def test_recommend_writes_lists_and_a_second_start_does_nothing(directory: Path) -> None:
    done = command(directory, "recommend", *FLAGS, "--k", "4", "--json", str(directory / "facts.json"))
    assert done.returncode == 0, done.stderr
    facts = json.loads((directory / "facts.json").read_text())
    stored = json.loads((directory / facts["paths"]["recommendations"]).read_text())
    table = pyarrow.parquet.read_table(directory / "out/runs/night/recommendations/lists")
    assert (
        len(table)
        == facts["rows"]
        == stored["rows"]
        == 4 * stored["users"]
        - sum(4 - count for count in [table["user"].to_pylist().count(user) for user in set(table["user"].to_pylist())])
    )
    assert table.column_names == ["user", "rank", "item", "score"] and set(table["rank"].to_pylist()) == {1, 2, 3, 4}
    assert f"{stored['users']:,} users x 4 of {stored['items']:,} items = {stored['rows']:,} rows" in done.stdout
    again = command(directory, "recommend", *FLAGS, "--k", "4")
    assert again.returncode == 0 and "already done by an earlier start" in again.stdout


@pytest.mark.slow
def test_export_writes_an_export_that_recommend_takes(directory: Path) -> None:
    items = (directory / "out/runs/night/dataset/vocabulary/movieId.txt").read_text().splitlines()[3:9]
    (directory / "available.txt").write_text("".join(f"{item}\n" for item in [*items, "123456789"]))
    done = command(directory, "export", *FLAGS, "--items", "available.txt")
    assert done.returncode == 0, done.stderr
    assert "recommends 6 items" in done.stdout and "1 more items of available.txt are left out" in done.stdout
    export = "out/runs/night/exports/available"
    lists = command(directory, "recommend", *FLAGS, "--export", export, "--k", "2", "--format", "csv")
    assert lists.returncode == 0, lists.stderr
    rows = [
        line.split(",")
        for path in sorted((directory / "out/runs/night/recommendations/lists").glob("*.csv"))
        for line in path.read_text().splitlines()[1:]
    ]
    assert rows and {row[2] for row in rows} <= set(items)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("recommend", "--k", "0"), "--k should be at least 1. Received: 0"),
        (
            ("recommend", "--table", "dataset.lists"),
            "--table should be PROJECT.DATASET.TABLE. Received: 'dataset.lists'",
        ),
        (("recommend", "--table", "p.d.t"), "--table takes the Parquet files of an --output_root on gs://"),
        (("recommend", "--users", "u.txt", "--users_table", "p.d.t"), "name the same thing; give one of them"),
        (("recommend", "--run_id", "none"), "none/dataset has no readable manifest.json"),
        pytest.param(
            ("recommend", "--users", "nobody.txt"),
            "input 'nobody.txt' matches no file",
            marks=pytest.mark.slow,
        ),
        (("export",), "--stage export needs a list of items: --items FILE"),
        pytest.param(
            ("export", "--items", "nothing.txt"),
            "--items: nothing.txt cannot be read",
            marks=pytest.mark.slow,
        ),
        (("train", "--items", "x"), "--items belongs to --stage export or recommend"),
    ],
)
def test_mistakes_take_one_line(directory: Path, flags: tuple[str, ...], message: str) -> None:
    stage, *others = flags
    done = command(directory, stage, *FLAGS, *others)
    assert done.returncode in (1, 2) and message in done.stderr.splitlines()[-1], done.stderr
