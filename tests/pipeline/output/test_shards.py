"""Checks that each row is in one shard, at a place that depends only on the seed and the input."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import zlib
from collections import Counter
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from hypothesis import given
from hypothesis import strategies as st

from pipeline.input.interactions import LABEL
from pipeline.manifest import Shard, shard_name
from pipeline.output.shards import FEW_LABELS, EncodedRows, Layout, WriteShards, WrittenShard, csv_text, draw_shards

SCHEMA = pa.schema([("user", pa.int32()), ("item", pa.string()), (LABEL, pa.float32()), ("timestamp", pa.int64())])
SEED = 3
ODD = ["a,b", '"', 'say "hi"', " a ", "日本", "'", "-", "\t", "a;b", "x" * 100]


@pytest.mark.parametrize(
    ("train_rows", "eval_rows", "rows_per_shard", "layout"),
    [
        (100, 10, 100, Layout(1, 1)),
        (101, 10, 100, Layout(2, 1)),
        # No shard of a split without rows.
        (5, 0, 100, Layout(1, 0)),
        (5, 3, 1, Layout(5, 3)),
    ],
)
def test_layout(train_rows: int, eval_rows: int, rows_per_shard: int, layout: Layout) -> None:
    assert Layout.of(train_rows, eval_rows, rows_per_shard) == layout


@given(st.integers(1, 1000), st.integers(1, 1000), st.lists(st.booleans(), max_size=50), st.integers(0, 2**40))
def test_draws_stay_within_their_split(train: int, evaluation: int, is_eval: list[bool], offset: int) -> None:
    flags = np.array(is_eval, bool)
    shards = draw_shards(Layout(train, evaluation), flags, SEED, 0, offset)
    assert ((shards[~flags] >= 0) & (shards[~flags] < train)).all()
    assert ((shards[flags] >= train) & (shards[flags] < train + evaluation)).all()
    np.testing.assert_array_equal(shards, draw_shards(Layout(train, evaluation), flags, SEED, 0, offset))


def test_draws_are_even_and_depend_on_the_place() -> None:
    is_eval = np.arange(100_000) % 10 == 0
    shards = draw_shards(Layout(9, 1), is_eval, SEED, 0, 0)
    assert np.abs(np.bincount(shards, minlength=10) - 10_000).max() < 5 * 100
    for other in ((SEED + 1, 0, 0), (SEED, 1, 0), (SEED, 0, 1)):
        assert (shards == draw_shards(Layout(9, 1), is_eval, *other)).mean() == pytest.approx(0.1 + 0.9 / 9, abs=0.01)


def batches(layout: Layout, rows_in: list[int], seed: int = SEED) -> list[EncodedRows]:
    """Makes batches of two files; timestamps number all rows, every tenth row is an eval row."""
    made, start = [], 0
    for number, count in enumerate(rows_in):
        place = np.arange(start, start + count)
        rows = pa.record_batch(
            [place % 100, [ODD[i % len(ODD)] for i in place], (place % 8) / np.float32(7), place], schema=SCHEMA
        )
        file, offset = number % 2, 1000 * number
        is_eval = (place % 10 == 0) if layout.eval else np.zeros(count, bool)
        made.append(EncodedRows(file, offset, rows, draw_shards(layout, is_eval, seed, file, offset)))
        start += count
    return made


def write(
    directory: Path, layout: Layout, made: list[EncodedRows], seed: int = SEED, two_steps: bool = False
) -> list[str]:
    """Runs the transform and returns the shards' names; what it yields must be what stands in the directory."""
    with beam.Pipeline(FnApiRunner()) as pipeline:
        singleton = pipeline | "Layout" >> beam.Create([layout])
        batches = pipeline | "Batches" >> beam.Create(made)
        written = batches | WriteShards(str(directory), str(directory / ".tmp"), SCHEMA, singleton, seed, two_steps)
        assert_that(written, functools.partial(check_described, directory))
    return sorted(str(path.relative_to(directory)) for path in directory.glob("*/*.gz"))


def check_described(directory: Path, written: list[WrittenShard]) -> None:
    found = []
    for path in directory.glob("*/*.gz"):
        data = path.read_bytes()
        shard = Shard(
            path=str(path.relative_to(directory)),
            rows=len(gzip.decompress(data).splitlines()),
            bytes=len(data),
            crc32=zlib.crc32(data),
        )
        found.append(WrittenShard(path.parent.name, shard))
    assert sorted(map(repr, written)) == sorted(map(repr, found))


Row = tuple[int, str, float, int]


def read(path: Path) -> list[Row]:
    lines = csv.reader(io.StringIO(gzip.decompress(path.read_bytes()).decode(), newline=""))
    return [(int(user), item, float(np.float32(label)), int(timestamp)) for user, item, label, timestamp in lines]


def rows_of(made: list[EncodedRows]) -> list[Row]:
    return [tuple(row.values()) for batch in made for row in batch.rows.to_pylist()]  # type: ignore[misc]


@pytest.mark.parametrize("rows_in", [[2000, 1, 500], [300] * 10, [7]])
def test_each_row_is_in_one_shard(tmp_path: Path, rows_in: list[int]) -> None:
    layout = Layout(4, 2)
    made = batches(layout, rows_in)
    written: dict[str, Counter[Row]] = {"train": Counter(), "eval": Counter()}
    for name in write(tmp_path, layout, made):
        written[name.split("/")[0]].update(read(tmp_path / name))
    expected = {"train": Counter(), "eval": Counter()}
    for row in rows_of(made):
        expected["eval" if row[3] % 10 == 0 else "train"][row] += 1
    assert written == expected
    assert not list((tmp_path / ".tmp").iterdir())


def test_shards_have_the_names_and_rows_that_were_drawn(tmp_path: Path) -> None:
    layout = Layout(3, 2)
    made = batches(layout, [500, 500])
    names = [
        *(shard_name("train", index, 3) for index in range(3)),
        *(shard_name("eval", index, 2) for index in (0, 1)),
    ]
    assert write(tmp_path, layout, made) == sorted(names)
    drawn = Counter(names[shard] for batch in made for shard in batch.shards.tolist())
    assert {name: len(read(tmp_path / name)) for name in names} == drawn


def test_a_split_without_rows_has_no_shard(tmp_path: Path) -> None:
    assert write(tmp_path, Layout(1, 0), batches(Layout(1, 0), [10])) == ["train/part-00000-of-00001.csv.gz"]
    assert len(read(tmp_path / "train/part-00000-of-00001.csv.gz")) == 10


def test_bytes_depend_on_seed_and_rows_alone(tmp_path: Path) -> None:
    layout = Layout(3, 1)
    made = batches(layout, [700, 300, 300, 1])
    contents = []
    for attempt, (order, seed) in enumerate([(made, SEED), (made[::-1], SEED), (made, SEED + 1)]):
        directory = tmp_path / str(attempt)
        contents.append([(directory / name).read_bytes() for name in write(directory, layout, order, seed)])
    assert contents[0] == contents[1]
    # Another seed: the same rows in another order.
    for one, other in zip(contents[0], contents[2], strict=True):
        assert one != other
        assert Counter(gzip.decompress(one).splitlines()) == Counter(gzip.decompress(other).splitlines())


def test_two_steps_write_the_bytes_of_one(tmp_path: Path) -> None:
    layout = Layout(9, 2)
    made = batches(layout, [700, 300, 300, 1, 900])
    written = []
    for two_steps, order in ((False, made), (True, made[::-1])):
        directory = tmp_path / str(two_steps)
        names = write(directory, layout, order, two_steps=two_steps)
        written.append({name: (directory / name).read_bytes() for name in names})
    assert written[0] == written[1]


def test_the_shuffle_is_global(tmp_path: Path) -> None:
    layout = Layout(4, 0)
    made = batches(layout, [5000] * 4)
    shards = [[row[3] for row in read(tmp_path / name)] for name in write(tmp_path, layout, made)]
    for shard in shards:
        # Each input batch gives each shard a quarter of its rows, ...
        from_batch = np.bincount(np.array(shard) // 5000, minlength=4)
        assert np.abs(from_batch - 1250).max() < 5 * np.sqrt(5000 * 0.25 * 0.75)
        # ... and the place of a row there is independent of its place in the input and of the row before.
        assert abs(np.corrcoef(shard, np.arange(len(shard)))[0, 1]) < 5 / np.sqrt(len(shard))
        assert abs(np.corrcoef(shard[1:], shard[:-1])[0, 1]) < 5 / np.sqrt(len(shard))


def test_text() -> None:
    table = pa.table([[1, 2], ["a,b", 'say "hi"'], pa.array([0.1, 1 / 3], pa.float32()), [7, -7]], schema=SCHEMA)
    assert bytes(csv_text(table)) == b'1,"a,b",0.1,7\n2,"say ""hi""",0.33333334,-7\n'


@given(st.lists(st.floats(0, 1, width=32), min_size=1))
def test_labels_survive_as_text(labels: list[float]) -> None:
    text = bytes(csv_text(pa.table({LABEL: pa.array(labels, pa.float32())})))
    assert [float(np.float32(line)) for line in text.split()] == labels


@pytest.mark.parametrize("distinct", [2, FEW_LABELS, FEW_LABELS + 1])
def test_labels_have_the_same_text_however_many_differ(distinct: int) -> None:
    labels = np.arange(2 * distinct, dtype=np.float32) % distinct / np.float32(distinct)
    # With strings in the rows all labels are formatted one by one.
    numbers, strings = (pa.table({"item": item, LABEL: labels}) for item in ([7] * len(labels), ["7"] * len(labels)))
    assert bytes(csv_text(numbers)) == bytes(csv_text(strings)).replace(b'"', b"")


@given(st.lists(st.text(min_size=1).map(lambda text: text.replace("\r", "")).filter(bool), min_size=1, max_size=8))
def test_strings_survive_as_text(strings: list[str]) -> None:
    text = bytes(csv_text(pa.table({"item": strings, LABEL: [0] * len(strings)}))).decode()
    assert [row[0] for row in csv.reader(io.StringIO(text, newline=""))] == strings
