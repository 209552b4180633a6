"""Tests input and output on gs://, against an emulator of Cloud Storage."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import polars as pl
import pytest

from tests.dataflow.command import HEADER, dataset, preprocess, ratings
from tests.dataflow.storage import Storage

pytestmark = pytest.mark.slow

TEMP = "--temp_location=gs://bucket/tmp"
# A file of an attempt on a service, which goes on when the command that started it has ended.
RUNNING = ".tmp/job-1/train/part-00000-of-00001.csv.gz"
# The files whose bytes must not depend on where the files are.
SAME_EVERYWHERE = ("train/", "eval/", "vocabulary/")


@pytest.fixture(scope="module")
def finished(bucket: Storage) -> subprocess.CompletedProcess[str]:
    """Makes a dataset where another attempt has left files, and while a job runs elsewhere."""
    for name in ("train/part-00000-of-00009.csv.gz", ".tmp/local-1/train/part-0", "transform_fn/saved_model.pb"):
        bucket.write(dataset("out") + name, b"stale")
    bucket.write(dataset("out") + RUNNING, b"of a job that runs")
    return preprocess(bucket.environment, "gs://bucket/out", TEMP)


def test_the_whole_preprocessing(finished: subprocess.CompletedProcess[str], bucket: Storage) -> None:
    assert finished.returncode == 0, finished.stderr
    manifest = json.loads(bucket.read(dataset("out") + "manifest.json"))
    assert manifest["counts"]["read"] == 3000
    assert manifest["counts"]["rejected"] == 2
    files = ["gs://bucket/log/2026-11-23.csv", "gs://bucket/log/2026-11-24.csv.gz"]
    assert [file["path"] for file in manifest["input"]] == files
    rejected = b"".join(bucket.contents(dataset("out") + "rejected/").values()).decode()
    assert all(f'"{file}"' in rejected for file in files)


def test_an_unfinished_attempt_is_cleared(finished: subprocess.CompletedProcess[str], bucket: Storage) -> None:
    assert finished.returncode == 0, finished.stderr
    contents = bucket.contents(dataset("out"))
    manifest = json.loads(contents["manifest.json"])
    described = {shard["path"] for split in manifest["splits"].values() for shard in split["shards"]}
    assert {name for name in contents if name.startswith(("train/part", "eval/part"))} == described
    assert b"stale" not in contents.values()
    assert {name for name in contents if name.startswith(".tmp/")} == {RUNNING}
    assert not [name for name in bucket.names("out/") if name.endswith(".lock")]


def test_the_same_bytes_as_on_a_disk(
    finished: subprocess.CompletedProcess[str], bucket: Storage, log: dict[str, bytes], tmp_path: Path
) -> None:
    assert finished.returncode == 0, finished.stderr
    for name, data in log.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    on_disk = preprocess(bucket.environment, str(tmp_path / "out"), pattern=str(tmp_path / "log" / "*"))
    assert on_disk.returncode == 0, on_disk.stderr
    directory = tmp_path / dataset("out")
    files = {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    there = bucket.contents(dataset("out"))
    compared = {name for name in files | there if name.startswith(SAME_EVERYWHERE) and not name.endswith("/")}
    assert {name: there.get(name) for name in compared} == {name: files.get(name) for name in compared}
    # Three shards of train, one of eval, two files for each vocabulary.
    assert len(compared) == 8


def test_a_second_start_does_nothing(finished: subprocess.CompletedProcess[str], bucket: Storage) -> None:
    before = bucket.contents("out/")
    second = preprocess(bucket.environment, "gs://bucket/out", TEMP)
    assert (second.returncode, second.stderr) == (0, "")
    assert "preprocess: already done by an earlier start" in second.stdout
    assert bucket.contents("out/") == before


@pytest.mark.parametrize("pattern", ["gs://bucket/log/missing.csv", "gs://no-such-bucket/log/*"])
def test_input_that_is_not_there_is_one_line(bucket: Storage, pattern: str) -> None:
    done = preprocess(bucket.environment, "gs://bucket/nothing", pattern=pattern)
    assert done.returncode == 2
    assert done.stderr.startswith(f"run_pipeline.py: error: input {pattern!r} ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert not bucket.names("nothing")


def test_a_bucket_for_the_output_that_is_not_there(bucket: Storage) -> None:
    done = preprocess(bucket.environment, "gs://no-such-bucket/out")
    assert done.returncode == 2
    assert done.stderr.startswith("run_pipeline.py: error: --output_root: gs://no-such-bucket/out/runs/")
    assert done.stderr.count("\n") == 1, done.stderr


def test_parquet(bucket: Storage) -> None:
    file = io.BytesIO()
    pl.read_csv(io.StringIO(HEADER + ratings(2000, seed=3))).write_parquet(file)
    pattern = bucket.write("parquet/ratings.parquet", file.getvalue()).replace("ratings", "*")
    done = preprocess(
        bucket.environment, "gs://bucket/from_parquet", "--set=pipeline.input.format=parquet", pattern=pattern
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(bucket.read(dataset("from_parquet") + "manifest.json"))["counts"]
    assert (counts["read"], counts["rejected"]) == (2000, 0)
