"""Counts that are kept by file: the same dataset, and old files are not opened."""

from __future__ import annotations

import datetime
import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from pipeline.config import PipelineConfig
from pipeline.input import csv_files
from pipeline.manifest import DatasetManifest, DotbiasError, InputFile
from pipeline.vocabulary import counts_cache
from pipeline.vocabulary.counts_cache import Days, FileCounts, entry_key
from tests.opened_files import opened_files
from tests.pipeline.preprocessing import HEADER, config, make

DAY = 86_400
# The log begins on 2026-01-01; its day n has the number FIRST + n.
FIRST = 20_454


def midnight(day: int) -> datetime.datetime:
    return datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc) + datetime.timedelta(days=day)


def options(
    log: Path, cache: Path | None, since: int = 0, cut: int = 4, until: int = 5, **fields: Any
) -> PipelineConfig:
    return config(
        [log / "*"],
        **{
            "window": {"since": midnight(since), "until": midnight(until)},
            "split": {"method": "time", "since": midnight(cut)},
            "counts_cache": None if cache is None else str(cache),
            "max_rejected_fraction": 0.1,
            **fields,
        },
    )


def lines(day: int, rows: int, seed: int) -> str:
    draw = np.random.default_rng(seed)
    users, movies = draw.zipf(1.4, rows) % 200, draw.zipf(1.3, rows) % 500
    stars, seconds = draw.integers(1, 11, rows) / 2, (FIRST + day) * DAY + draw.integers(0, DAY, rows)
    return "".join(f"{u},{m},{r},{t}\n" for u, m, r, t in zip(users, movies, stars, seconds, strict=True))


def write_day(log: Path, day: int, text: str) -> Path:
    path = log / f"{day:02d}.csv"
    path.write_text(HEADER + text)
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Writes five files of a day each, one of three days, and rejected rows with and without a known time."""
    directory = tmp_path / "log"
    directory.mkdir()
    for day in range(5):
        write_day(directory, day, lines(day, 800, day))
    bad = f"1,2,9.5,{(FIRST + 1) * DAY}\n1,2,9.5,{(FIRST + 7) * DAY}\n7,8\n"
    mixed = HEADER + lines(3, 300, 10) + lines(1, 300, 11) + bad + lines(2, 300, 12)
    (directory / "mixed.csv.gz").write_bytes(gzip.compress(mixed.encode()))
    return directory


def files_of(dataset: Path) -> dict[str, bytes]:
    """Returns the bytes of shards, vocabularies with their counts, and rejected rows."""
    directories = ("train", "eval", "vocabulary", "rejected")
    return {f"{d}/{path.name}": path.read_bytes() for d in directories for path in (dataset / d).glob("*")}


def described(manifest: DatasetManifest) -> dict[str, Any]:
    fields = manifest.model_dump(mode="json")
    del fields["config"]["counts_cache"]
    return fields


def made_in_each_way(directory: Path, log: Path) -> DatasetManifest:
    """Makes the dataset without the cache, with an empty one and with a full one; returns the first manifest."""
    caches = {"without": None, "first": directory / "counts", "second": directory / "counts"}
    made = {name: make(directory / name, options(log, cache)) for name, cache in caches.items()}
    assert files_of(directory / "without") == files_of(directory / "first") == files_of(directory / "second")
    assert described(made["without"]) == described(made["first"]) == described(made["second"])
    return made["without"]


@pytest.mark.slow
def test_the_dataset_is_the_same_byte_by_byte_with_and_without_the_cache(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Files of several blocks, and vocabularies of several partitions.
    monkeypatch.setattr(csv_files, "RANGE_BYTES", 4000)
    monkeypatch.setattr("pipeline.preprocess.BYTES_PER_PARTITION", 20_000)
    without = made_in_each_way(tmp_path, log)
    assert without.counts.rejected == 2
    assert without.counts.out_of_window == 1
    assert len(list((tmp_path / "counts").glob("*/entry.json"))) == 6


@pytest.mark.slow
def test_a_sample_of_many_rejected_rows_is_the_same_with_and_without_the_cache(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_files, "RANGE_BYTES", 4000)
    monkeypatch.setattr("pipeline.input.interactions.MAX_KEPT_ROWS", 5)
    for name in ("05.csv", "06.csv"):
        (log / name).write_text(HEADER + lines(2, 100, 5) + "".join(f"{row},\n" for row in range(40)))
    assert made_in_each_way(tmp_path, log).counts.rejected_not_kept == {"wrong number of columns": 81 - 5}


@pytest.mark.slow
def test_another_window_needs_no_reading_of_files_that_are_out_of_it(tmp_path: Path, log: Path) -> None:
    cache = tmp_path / "counts"
    make(tmp_path / "first", options(log, cache))
    write_day(log, 5, lines(5, 800, 5))
    with opened_files(log) as opened:
        second = make(tmp_path / "second", options(log, cache, since=2, cut=5, until=6))
        assert {path.name for path in opened()} == {"02.csv", "03.csv", "04.csv", "05.csv", "mixed.csv.gz"}
    without = make(tmp_path / "without", options(log, None, since=2, cut=5, until=6))
    assert files_of(tmp_path / "second") == files_of(tmp_path / "without")
    assert described(second) == described(without)


@pytest.mark.slow
def test_a_file_out_of_the_window_is_out_of_it_as_a_whole(tmp_path: Path, log: Path) -> None:
    (log / "mixed.csv.gz").unlink()
    write_day(log, 0, lines(0, 100, 0) + "a line that says no time\n")
    # A file without any row that has a time may belong to the window.
    (log / "broken.csv").write_text(HEADER + "nothing\nof use\n")
    made = make(tmp_path / "dataset", options(log, tmp_path / "counts"))
    assert made.counts.rejected == 3
    made = make(tmp_path / "later", options(log, tmp_path / "counts", since=2))
    assert (made.counts.rejected, made.counts.out_of_window) == (2, 100 + 1 + 800)
    assert made.counts.read == 100 + 1 + 4 * 800 + 2


@pytest.mark.slow
def test_only_new_rows_with_the_vocabulary_of_the_whole_window(tmp_path: Path, log: Path) -> None:
    cache = tmp_path / "counts"
    make(tmp_path / "first", options(log, cache))
    write_day(log, 5, lines(5, 800, 5))
    (log / "mixed.csv.gz").unlink()
    full = make(tmp_path / "full", options(log, None, since=1, cut=5, until=6))
    with opened_files(log) as opened:
        new = make(tmp_path / "new", options(log, cache, since=4, cut=5, until=6, vocabulary_since=midnight(1)))
        assert {path.name for path in opened()} == {"04.csv", "05.csv"}
    vocabularies = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "vocabulary").iterdir()}
        for name in ("full", "new")
    ]
    assert vocabularies[0] == vocabularies[1]
    assert (new.splits["train"].rows, new.splits["eval"].rows) == (800, 800)
    assert new.counts.out_of_window == 4 * 800
    assert new.splits["train"].first_timestamp // DAY == FIRST + 4  # type: ignore[operator]
    assert (new.counts.vocabulary, full.counts.vocabulary) == (3200, None)
    for name, feature in new.features.items():
        assert feature.vocabulary_oov_rows == full.features[name].oov_rows["train"]  # type: ignore[index]
    assert new.config["vocabulary_since"] == "2026-01-02T00:00:00Z"
    # The eval rows are encoded as a full run encodes them.
    assert sorted(shard_lines(tmp_path / "new", "eval")) == sorted(shard_lines(tmp_path / "full", "eval"))


def shard_lines(dataset: Path, split: str) -> list[bytes]:
    return [line for path in (dataset / split).iterdir() for line in gzip.decompress(path.read_bytes()).splitlines()]


@pytest.mark.slow
def test_a_file_that_changed_is_counted_again(tmp_path: Path, log: Path) -> None:
    cache = tmp_path / "counts"
    make(tmp_path / "first", options(log, cache))
    before = set(cache.glob("*/entry.json"))
    # A token that was not there, often enough to be in the vocabulary.
    write_day(log, 2, lines(2, 800, 2) + f"777777,1,3.0,{(FIRST + 2) * DAY}\n" * 3)
    second = tmp_path / "second"
    make(second, options(log, cache))
    assert len(set(cache.glob("*/entry.json")) - before) == 1
    assert "777777" in (second / "vocabulary" / "userId.txt").read_text().split()
    make(tmp_path / "without", options(log, None))
    assert files_of(second) == files_of(tmp_path / "without")


@pytest.mark.slow
def test_a_file_that_is_gone_leaves_the_vocabulary(tmp_path: Path, log: Path) -> None:
    cache = tmp_path / "counts"
    only_here = write_day(log, 6, f"777777,1,3.0,{FIRST * DAY}\n" * 3)
    make(tmp_path / "first", options(log, cache))
    assert "777777" in (tmp_path / "first" / "vocabulary" / "userId.txt").read_text().split()
    entries = set(cache.glob("*/entry.json"))
    only_here.unlink()
    make(tmp_path / "second", options(log, cache))
    assert "777777" not in (tmp_path / "second" / "vocabulary" / "userId.txt").read_text().split()
    # Another run may still read it; after a week no longer.
    assert set(cache.glob("*/entry.json")) == entries
    for path in cache.rglob("*"):
        os.utime(path, (0, 0))
    make(tmp_path / "third", options(log, cache))
    assert len(entries) - len(list(cache.glob("*/entry.json"))) == 1
    assert len(list(cache.glob("*/userId.parquet"))) == len(entries) - 1


@pytest.mark.slow
def test_an_entry_that_was_not_completed_counts_for_nothing(tmp_path: Path, log: Path) -> None:
    cache = tmp_path / "counts"
    make(tmp_path / "first", options(log, cache))
    (entry, other, *_) = sorted(cache.glob("*/entry.json"))
    entry.unlink()
    other.write_text(json.dumps({"format_version": 0}))
    make(tmp_path / "second", options(log, cache))
    assert files_of(tmp_path / "first") == files_of(tmp_path / "second")
    assert FileCounts.model_validate_json(other.read_text()).format_version == 2
    assert entry.exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int64", "string"])
def test_parquet_with_text_and_hashed_tokens(tmp_path: Path, kind: str) -> None:
    log = tmp_path / "log"
    log.mkdir()
    draw = np.random.default_rng(0)
    for day in range(3):
        user = pa.array(draw.integers(0, 50, 500)).cast(pa.string() if kind == "string" else pa.int64())
        item, time = pa.array(draw.integers(0, 20, 500)), pa.array((FIRST + day) * DAY + draw.integers(0, DAY, 500))
        label = pa.array(draw.integers(0, 2, 500))
        pa.parquet.write_table(pa.table([user, item, label, time], ["user", "item", "y", "t"]), log / f"{day}.parquet")
    fields = {
        "input": {"patterns": [str(log / "*")], "format": "parquet"},
        "columns": {"user": kind, "item": "int64", "y": "int64", "t": "int64"},
        "label": {"column": "y"},
        "features": {"user": {"side": "user"}, "item": {"side": "item", "encoding": "hashing"}},
        "timestamp_column": "t",
    }
    for name, cache in {"without": None, "first": tmp_path / "counts", "second": tmp_path / "counts"}.items():
        make(tmp_path / name, options(log, cache, since=0, cut=2, until=3, **fields))
    assert files_of(tmp_path / "without") == files_of(tmp_path / "first") == files_of(tmp_path / "second")


@pytest.mark.slow
def test_a_file_without_rows_is_counted_once(tmp_path: Path, log: Path) -> None:
    (log / "empty.csv").write_text(HEADER)
    make(tmp_path / "first", options(log, tmp_path / "counts"))
    with opened_files(log) as opened:
        make(tmp_path / "second", options(log, tmp_path / "counts"))
        assert log / "empty.csv" not in opened()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"duplicates": "last"}, "`duplicates: last`"),
        ({"split": {"method": "time"}}, "the split is not"),
        ({"split": {"method": "random"}}, "the split is not"),
        ({"window": {"since": FIRST * DAY + 1}}, "is not midnight (UTC)"),
    ],
)
def test_where_it_cannot_be_used_it_says_why_and_all_rows_are_read(
    tmp_path: Path, log: Path, fields: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path / "dataset", options(log, tmp_path / "counts", **fields))
    (said,) = [record.getMessage() for record in caplog.records if "counts_cache" in record.getMessage()]
    assert reason in said
    assert not (tmp_path / "counts").exists()


@pytest.mark.slow
def test_a_file_that_grows_while_it_is_counted_leaves_no_entry(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = counts_cache.CountsCache.write_tokens

    def grow_and_write(cache: counts_cache.CountsCache, number: int, *arguments: Any) -> None:
        with (log / "04.csv").open("a") as file:
            file.write(f"1,1,3.0,{(FIRST + 4) * DAY}\n")
        write(cache, number, *arguments)

    monkeypatch.setattr(counts_cache.CountsCache, "write_tokens", grow_and_write)
    with pytest.raises(DotbiasError, match=r"04\.csv has changed"):
        make(tmp_path / "dataset", options(log, tmp_path / "counts"))
    paths = [json.loads(path.read_text())["path"] for path in (tmp_path / "counts").glob("*/entry.json")]
    assert str(log / "04.csv") not in paths


@pytest.mark.parametrize(
    "change",
    [
        {"label": {"column": "rating", "threshold": 3.0}},
        {"timestamp_unit": "ms"},
        {"features": {"userId": {"side": "user"}, "movieId": {"side": "item", "missing": "token"}}},
        {"columns": {"userId": "string", "movieId": "int64", "rating": "float32", "timestamp": "int64"}},
    ],
)
def test_the_key_follows_the_options_that_decide_which_rows_count(tmp_path: Path, change: dict[str, Any]) -> None:
    file = InputFile(path="log.csv", bytes=10, modified=1.5)
    base = options(tmp_path, None)
    assert entry_key(file, base) != entry_key(file, options(tmp_path, None, **change))
    for other in ({"bytes": 11}, {"modified": 1.25}, {"path": "other.csv"}):
        assert entry_key(file, base) != entry_key(file.model_copy(update=other), base)
    same = options(tmp_path, tmp_path, since=1, seed=7, rows_per_shard=5000, max_rejected_fraction=0.5)
    assert entry_key(file, base) == entry_key(file, same)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"counts_cache": None}, "it needs a `counts_cache`"),
        ({"duplicates": "last"}, "which are not kept: `duplicates: last`"),
        ({"vocabulary_since": midnight(3)}, "should not be after `window.since`"),
    ],
)
def test_vocabulary_since_needs_counts(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(tmp_path, tmp_path, since=2, **{"vocabulary_since": midnight(1), **fields})


def test_days() -> None:
    assert [day for day in range(5) if Days(1, 3).have(day)] == [1, 2]
    assert Days(None, None).have(-1)
    counts = FileCounts(path="x", rows={1: 5}, rejected={"bad": {3: 1}}, undated={"worse": 2})
    assert counts.total == 8
    assert counts.rejected_in(Days(3, None)) == {"bad": 1, "worse": 2}
    assert counts.rejected_in(Days(4, None)) == {"worse": 2}
    assert not counts.is_outside(Days(3, None))
    assert counts.is_outside(Days(4, None))
    assert not FileCounts(path="x", rows={}, rejected={}, undated={"bad": 2}).is_outside(Days(4, None))
