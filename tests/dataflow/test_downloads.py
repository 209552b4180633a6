"""Counts the bytes that are fetched from gs:// to read a log."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import pytest

from tests.dataflow.command import ROOT, preprocess
from tests.dataflow.storage import Storage

# At most so many times the bytes that a pass needs.
BOUND = 1.1
COLUMNS = {"userId": "int64", "movieId": "int64", "rating": "float32", "timestamp": "int64"}

# Reads files as a worker does; prints of each the number of its rows and the sum of its timestamps.
_READ = """
import sys
import pyarrow.compute as pc
from pipeline.config import PipelineConfig
from pipeline.storage.matching import match_input
from pipeline.input.ranges import split_input
config = PipelineConfig.model_validate_json(sys.argv[1])
for file in match_input(config.input.patterns):
    parsed = [parse()[1].rows for part in split_input((0, file), config) for parse in part.blocks(config)]
    print(sum(map(len, parsed)), sum(pc.sum(rows["timestamp"]).as_py() for rows in parsed))
"""


def log(rows: int) -> pa.Table:
    """Returns rows in the format of MovieLens, sorted by time."""
    draw = np.random.default_rng(5)
    return pa.table(
        {
            "userId": draw.integers(1, 1_000_000, rows),
            "movieId": draw.integers(1, 100_000, rows),
            "rating": draw.integers(1, 11, rows).astype(np.float32) / 2,
            "timestamp": np.sort(draw.integers(9e8, 15e8, rows)),
        }
    )


def csv(rows: pa.Table) -> bytes:
    file = io.BytesIO()
    pyarrow.csv.write_csv(rows, file)
    return file.getvalue()


def summed(rows: pa.Table, times: int = 1) -> str:
    return f"{times * len(rows)} {times * pc.sum(rows['timestamp']).as_py()}"


def read(bucket: Storage, form: str, *paths: str) -> list[str]:
    config = {
        "input": {"patterns": paths, "format": form},
        "columns": COLUMNS,
        "timestamp_column": "timestamp",
        "features": {"userId": {"side": "user"}, "movieId": {"side": "item"}},
        "label": {"column": "rating", "scale": [0, 5]},
    }
    done = subprocess.run(
        [sys.executable, "-c", _READ, json.dumps(config)],
        cwd=ROOT,
        env=bucket.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def test_a_pass_fetches_what_it_needs(bucket: Storage) -> None:
    rows = log(1_000_000)
    text = csv(rows)
    # Three ranges and more; compressed, two requests for a stream; three row groups.
    compressed = gzip.compress(text + text.partition(b"\n")[2], 1)
    assert len(text) > 24 << 20 and len(compressed) > 16 << 20
    paths = [bucket.write("downloads/log.csv", text), bucket.write("downloads/log.csv.gz", compressed)]
    assert read(bucket, "csv", *paths) == [summed(rows), summed(rows, 2)]
    for name, size in (("downloads/log.csv", len(text)), ("downloads/log.csv.gz", len(compressed))):
        assert size <= bucket.downloaded[name] <= BOUND * size, (name, bucket.downloaded[name] / size)


def test_parquet(bucket: Storage) -> None:
    rows = log(600_000)
    # A column that nobody needs, and that takes most of the file.
    noise = pa.py_buffer(np.random.default_rng(6).bytes(50 * len(rows)))
    reviews = pa.Array.from_buffers(pa.binary(50), len(rows), [None, noise])
    file = io.BytesIO()
    pyarrow.parquet.write_table(rows.add_column(2, "review", reviews), file, row_group_size=200_000)
    path = bucket.write("downloads/log.parquet", file.getvalue())
    metadata = pyarrow.parquet.ParquetFile(file).metadata
    needed = metadata.serialized_size
    for group in map(metadata.row_group, range(3)):
        columns = map(group.column, range(group.num_columns))
        needed += sum(column.total_compressed_size for column in columns if column.path_in_schema in COLUMNS)
    assert needed < len(file.getvalue()) / 3
    assert read(bucket, "parquet", path) == [summed(rows)]
    fetched = bucket.downloaded["downloads/log.parquet"]
    assert needed <= fetched <= BOUND * needed, fetched / needed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "times"), [([], 1), (["--direct_running_mode=multi_threading"], 2)], ids=["one thread", "other workers"]
)
def test_a_job_fetches_the_log_once_where_its_rows_can_be_kept_and_else_twice(
    flags: list[str], times: int, bucket: Storage
) -> None:
    text = csv(log(1_000_000))
    path = bucket.write("downloads/job.csv", text)
    before = bucket.downloaded["downloads/job.csv"]
    done = preprocess(
        bucket.environment,
        f"gs://bucket/downloads/out{times}",
        "--set=pipeline.rows_per_shard=1000000",
        *flags,
        pattern=path,
    )
    assert done.returncode == 0, done.stderr
    fetched = bucket.downloaded["downloads/job.csv"] - before
    assert times * len(text) <= fetched <= BOUND * times * len(text), fetched / len(text)
