"""Compares the whole job with an independent computation, and with itself on other engines.

`test_preprocess_faults` has what goes wrong.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

import apache_beam as beam
import numpy as np
import polars as pl
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from polars.testing import assert_frame_equal

from pipeline import preprocess as job
from pipeline.config import PipelineConfig
from pipeline.input import csv_files
from pipeline.input.interactions import Interactions
from pipeline.input.sources import describe_input, open_source
from pipeline.manifest import SPLITS, DatasetManifest, DotbiasError, read_manifest
from pipeline.output import fan_out
from pipeline.output.attempts import new_attempt
from pipeline.preprocess import build, preprocess
from pipeline.rows.splits import is_eval
from pipeline.storage.files import open_file
from tests.pipeline.preprocessing import (
    FN_API_RUNNER,
    config,
    contents,
    make,
    top_level,
    write_log,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_log(tmp_path_factory.mktemp("log"))


@pytest.fixture(scope="module")
def dataset(log: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("base") / "dataset"
    make(directory, config(log))
    return directory


# The independent computation.


def read_log(files: Iterable[Path]) -> pl.DataFrame:
    """Returns the good rows of the files, in order, with their splits."""
    frames = []
    for number, path in enumerate(files):
        data = path.read_bytes()
        text = gzip.decompress(data) if path.suffix == ".gz" else data
        lines = [line for line in text.split(b"\n")[1:] if line]
        good = [line for line in lines if line.count(b",") == 3 and b'"' not in line and b"9.5" not in line]
        frame = pl.read_csv(
            b"\n".join(good),
            has_header=False,
            new_columns=["userId", "movieId", "rating", "timestamp"],
            schema_overrides=[pl.Int64, pl.Int64, pl.Float32, pl.Int64],
        )
        header = text.index(b"\n") + 1
        # The label does not decide the split.
        said = frame.drop("rating").to_arrow().combine_chunks().to_batches()[0]
        batch = Interactions(number, header, said, {})
        in_eval = is_eval(config([]), None, batch)
        frames.append(frame.with_columns(split=pl.Series(np.where(in_eval, "eval", "train"))))
    return pl.concat(frames)


def vocabulary_of(rows: pl.DataFrame, feature: str, top_k: int | None) -> pl.DataFrame:
    """Returns the columns token, count, index."""
    counts = rows.filter(pl.col("split") == "train").group_by(pl.col(feature).alias("token")).len("count")
    kept = counts.filter(pl.col("count") >= 2).sort(["count", "token"], descending=[True, False])
    return kept.head(top_k if top_k is not None else len(kept)).with_row_index("index")


def encode(rows: pl.DataFrame, vocabularies: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Computes what the shards should hold; all out-of-vocabulary tokens get the one index after the last."""
    for feature, vocabulary in vocabularies.items():
        index = vocabulary.select(pl.col("token").alias(feature), pl.col("index").cast(pl.Int64))
        rows = rows.join(index, on=feature, how="left", maintain_order="left")
        rows = rows.with_columns(pl.col("index").fill_null(len(vocabulary)).alias(feature)).drop("index")
    label = 0.8 * (pl.col("rating") - 0.5) / 4.5 + 0.2 * (pl.col("rating") >= 4)
    return rows.select("split", "userId", "movieId", label=micro(label), timestamp="timestamp")


def micro(label: pl.Expr) -> pl.Expr:
    """Millionths, which a rounded sum and a rounded product agree on."""
    return (label.cast(pl.Float64) * 1e6).round().cast(pl.Int64)


def read_shards(dataset: Path, split: str, names: list[str]) -> pl.DataFrame:
    frames = [
        pl.read_csv(
            gzip.decompress(path.read_bytes()),
            has_header=False,
            new_columns=names,
            schema_overrides=[pl.Int64, pl.Int64, pl.Float64, pl.Int64],
        )
        for path in sorted((dataset / split).glob("*"))
    ]
    return pl.concat(frames).with_columns(micro(pl.col("label")), split=pl.lit(split))


def check(dataset: Path, manifest: DatasetManifest, rows: pl.DataFrame, top_ks: dict[str, int | None]) -> None:
    vocabularies = {feature: vocabulary_of(rows, feature, top_k) for feature, top_k in top_ks.items()}
    for feature, vocabulary in vocabularies.items():
        for name, column in ((f"{feature}.txt", "token"), (f"{feature}.counts.txt", "count")):
            text = "".join(f"{value}\n" for value in vocabulary[column])
            assert (dataset / "vocabulary" / name).read_text() == text
        described = manifest.features[feature]
        assert described.vocabulary_size == len(vocabulary)
        unknown = rows.filter(~pl.col(feature).is_in(vocabulary["token"].implode()))
        expected = {split: len(unknown.filter(pl.col("split") == split)) for split in SPLITS}
        assert described.oov_rows == expected
    expected_rows = encode(rows, vocabularies)
    names = [column.name for column in manifest.columns]
    found = pl.concat([read_shards(dataset, split, names) for split in SPLITS])
    by = expected_rows.columns
    assert_frame_equal(found.select(by).sort(by), expected_rows.sort(by))
    for split in SPLITS:
        part = rows.filter(pl.col("split") == split)
        described = manifest.splits[split]
        assert described.rows == len(part) == sum(shard.rows for shard in described.shards)
        assert described.positive_rows == (part["rating"] >= 4).sum()
        assert described.label_mean == pytest.approx(expected_rows.filter(split=split)["label"].mean() / 1e6, abs=1e-6)  # type: ignore[operator]


def test_generated_log_against_polars(log: list[Path], dataset: Path) -> None:
    manifest = DatasetManifest.from_json((dataset / "manifest.json").read_text())
    counts = manifest.counts
    assert (counts.read, counts.rejected) == (12_000, 2)
    assert counts.rejected_by_reason == {
        "rating: the label it makes is not in [0, 1]": 1,
        "a quote that is not closed in its line": 1,
    }
    rows = read_log(sorted(log[0].parent.iterdir()))
    check(dataset, manifest, rows, {"userId": None, "movieId": 300})
    assert [len(manifest.splits[split].shards) for split in SPLITS] == [6, 1]
    assert top_level(dataset) == {
        "train",
        "eval",
        "vocabulary",
        "rejected",
        "transform_fn",
        "transformed_metadata",
        "manifest.json",
    }


def test_movielens_against_polars(movielens: Path, tmp_path: Path) -> None:
    features = {"userId": {"side": "user"}, "movieId": {"side": "item"}}
    manifest = make(tmp_path / "dataset", config([movielens], features=features, rows_per_shard=20_000))
    assert (manifest.counts.read, manifest.counts.rejected) == (100_836, 0)
    check(tmp_path / "dataset", manifest, read_log([movielens]), {"userId": None, "movieId": None})


# Tests that the bytes are the same everywhere.


@pytest.mark.slow
def test_the_same_bytes_in_several_processes(
    log: list[Path], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the command does, for the worker processes.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    make(tmp_path / "dataset", config(log), "--direct_running_mode=multi_processing", "--direct_num_workers=2")
    assert contents(tmp_path / "dataset") == contents(dataset)


@pytest.mark.slow
def test_the_same_bytes_in_several_threads(log: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads many byte ranges of a file in threads, which finish them in any order."""
    monkeypatch.setattr(csv_files, "RANGE_BYTES", 8000)
    make(tmp_path / "one", config(log))
    make(tmp_path / "two", config(log), "--direct_running_mode=multi_threading", "--direct_num_workers=2")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_the_same_bytes_with_a_join(
    log: list[Path], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "BYTES_PER_PARTITION", 1 << 17)
    features = {
        "userId": {"side": "user", "lookup": "join"},
        "movieId": {"side": "item", "top_k": 300, "lookup": "join"},
    }
    manifest = make(tmp_path / "dataset", config(log, features=features))
    joined, table = contents(tmp_path / "dataset"), contents(dataset)
    assert read_manifest(str(dataset), open_file).model_copy(update={"config": manifest.config}) == manifest
    del joined["manifest.json"], table["manifest.json"]
    assert joined == table
    # A dataset that was made with a table need not be made again.
    assert make(dataset, config(log, features=features)).config != manifest.config


@pytest.mark.slow
def test_the_same_bytes_with_a_shuffle_in_two_steps(
    log: list[Path], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "MAX_MESSAGES", 0)
    make(tmp_path / "dataset", config(log))
    assert contents(tmp_path / "dataset") == contents(dataset)


def test_a_half_finished_dataset_is_made_from_nothing(log: list[Path], dataset: Path, tmp_path: Path) -> None:
    again = tmp_path / "dataset"
    for stale in ("train/part-00000-of-00099.csv.gz", "rejected/part-00009.csv", "vocabulary/x.txt", ".tmp/a.partial"):
        (again / stale).parent.mkdir(parents=True, exist_ok=True)
        (again / stale).write_text("stale")
    make(again, config(log))
    assert contents(again) == contents(dataset)
    assert top_level(again) == top_level(dataset)


def test_a_second_start_does_nothing(log: list[Path], dataset: Path) -> None:
    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in dataset.glob("**/*")}

    before = state()
    # Files of an attempt that was killed at the last moment are deleted.
    (dataset / ".tmp").mkdir()
    manifest = make(dataset, config(log))
    assert manifest == DatasetManifest.from_json((dataset / "manifest.json").read_text())
    assert state() == before


def test_another_configuration_is_refused(log: list[Path], dataset: Path) -> None:
    before = contents(dataset)
    with pytest.raises(DotbiasError, match=r"was made with `pipeline\.seed` 42, not 43"):
        make(dataset, config(log, seed=43))
    assert contents(dataset) == before


@pytest.mark.slow
def test_another_seed_gives_other_splits_of_the_same_rows(log: list[Path], dataset: Path, tmp_path: Path) -> None:
    manifest = make(tmp_path / "dataset", config(log, seed=43))
    assert manifest.counts.read == 12_000
    other, base = contents(tmp_path / "dataset"), contents(dataset)
    assert other.keys() == base.keys()
    for name in base:
        # Rejected rows do not depend on the seed.
        assert (other[name] == base[name]) == name.startswith("rejected"), name


@pytest.mark.slow
def test_progress_counts_the_rows_of_the_log_in_each_pass(log: list[Path], tmp_path: Path) -> None:
    reports = []
    options = config(log, split={"method": "time", "eval_fraction": 0.1})
    preprocess(str(tmp_path / "dataset"), options, [FN_API_RUNNER], lambda *report: reports.append(report[:2]))
    last = dict(reports)
    assert {stage: rows for stage, rows in last.items() if stage != "preprocess"} == {
        "preprocess: cut": 12_000,
        "preprocess: analyze": 12_000,
        "preprocess: transform": 12_000,
    }
    # A stage that has ended does not return, and rows only increase.
    passes = ["preprocess", *(f"preprocess: {name}" for name in ("cut", "analyze", "transform"))]
    assert reports == sorted(reports, key=lambda report: (passes.index(report[0]), report[1]))


# Other shapes of data.

TOKENS = ["a,b", 'say "hi"', "plain", "日本", " spaced ", "naïve", "10", "9", "'", "ab|c"]


def quoted(token: str) -> str:
    return '"' + token.replace('"', '""') + '"'


@pytest.fixture
def strings(tmp_path: Path) -> Path:
    """Writes 1000 rows with odd tokens; the first half has label 1."""
    lines = [
        f"{quoted(TOKENS[row % 10])},{quoted(TOKENS[row % 7])},{row % 11},{int(row < 500)}\n" for row in range(1000)
    ]
    path = tmp_path / "strings.csv"
    path.write_text("user,item,shop,clicked\n" + "".join(lines), encoding="utf-8")
    return path


def test_strings_and_mixed_encodings(strings: Path, tmp_path: Path) -> None:
    options = PipelineConfig.model_validate(
        {
            "input": {"patterns": str(strings)},
            "columns": {"user": "string", "item": "string", "shop": "int64", "clicked": "int64"},
            "label": {"column": "clicked"},
            "features": {
                "item": {"side": "item", "encoding": "hashing"},
                "user": {"side": "user"},
                "shop": {"side": "item", "encoding": "hashing"},
            },
            "split": {"eval_fraction": 0.0},
        }
    )
    manifest = make(tmp_path / "dataset", options)
    assert [(column.name, column.dtype) for column in manifest.columns] == [
        ("item", "string"),
        ("user", "int64"),
        ("shop", "int64"),
        ("label", "float32"),
    ]
    # All are equally frequent, so they stand in the order of their bytes.
    assert (tmp_path / "dataset/vocabulary/user.txt").read_bytes().split(b"\n")[:-1] == sorted(
        token.encode() for token in TOKENS
    )
    eval_split = manifest.splits["eval"]
    assert (eval_split.rows, eval_split.label_mean, eval_split.shards) == (0, None, [])
    assert not (tmp_path / "dataset/eval").exists()
    (shard,) = manifest.splits["train"].shards
    found = pl.read_csv(
        gzip.decompress((tmp_path / "dataset" / shard.path).read_bytes()),
        has_header=False,
        new_columns=["item", "user", "shop", "label"],
        schema_overrides={"item": pl.String},
    )
    index = {token: place for place, token in enumerate(sorted(TOKENS, key=str.encode))}
    expected = pl.DataFrame(
        {
            "item": [TOKENS[row % 7] for row in range(1000)],
            "user": [index[TOKENS[row % 10]] for row in range(1000)],
            "shop": [row % 11 for row in range(1000)],
            "label": [int(row < 500) for row in range(1000)],
        }
    )
    assert_frame_equal(found.sort(found.columns), expected.sort(expected.columns), check_dtypes=False)


def test_hashing_alone(log: list[Path], tmp_path: Path) -> None:
    features = {name: {"side": side, "encoding": "hashing"} for name, side in (("userId", "user"), ("movieId", "item"))}
    manifest = make(tmp_path / "dataset", config(log, features=features))
    rows = read_log(sorted(log[0].parent.iterdir()))
    by = ["split", "userId", "movieId", "label", "timestamp"]
    found = pl.concat([read_shards(tmp_path / "dataset", split, by[1:]) for split in SPLITS])
    assert_frame_equal(found.select(by).sort(by), encode(rows, {}).sort(by))
    assert not (tmp_path / "dataset/vocabulary").exists()
    assert manifest.features["userId"].vocabulary_size is None


def test_the_encoding_moves_no_row(log: list[Path], dataset: Path, tmp_path: Path) -> None:
    """Shards have the same rows in the same order, so models with other encodings can be compared row by row."""
    features = {name: {"side": side, "encoding": "hashing"} for name, side in (("userId", "user"), ("movieId", "item"))}
    make(tmp_path / "tokens", config(log, features=features))
    columns = ["userId", "movieId", "label", "timestamp"]
    for split in SPLITS:
        encoded, tokens = (read_shards(path, split, columns) for path in (dataset, tmp_path / "tokens"))
        assert_frame_equal(encoded.select(columns[2:]), tokens.select(columns[2:]))
        for name in features:
            vocabulary = np.loadtxt(dataset / "vocabulary" / f"{name}.txt", np.int64)
            index, token = encoded[name].to_numpy(), tokens[name].to_numpy()
            known = index < len(vocabulary)
            np.testing.assert_array_equal(vocabulary[index[known]], token[known])
            assert not np.isin(token[~known], vocabulary).any()


def test_the_counters_of_a_job_are_those_of_its_manifest(log: list[Path], dataset: Path, tmp_path: Path) -> None:
    options = config(log)
    source = open_source(options, describe_input(options, None), None)
    with beam.Pipeline(options=PipelineOptions([FN_API_RUNNER])) as pipeline:
        build(pipeline, str(tmp_path / "out"), new_attempt(str(tmp_path / "out"), False), options, source)
    found = pipeline.result.metrics().query(MetricsFilter().with_namespace("dotbias"))["counters"]
    counters = {counter.key.metric.name: counter.committed for counter in found}
    manifest = read_manifest(str(dataset), open_file)
    counts, shards = manifest.counts, [shard for split in manifest.splits.values() for shard in split.shards]
    expected = {
        "rows_read": counts.read,
        "rows_read_to_analyze": counts.read,
        "rows_read_to_transform": counts.read,
        "rows_train": counts.train,
        "rows_eval": counts.eval,
        **{f"rows_rejected: {reason}": rows for reason, rows in counts.rejected_by_reason.items()},
        "tokens_userId": manifest.features["userId"].vocabulary_size,
        "tokens_movieId": manifest.features["movieId"].vocabulary_size,
        "shards_written": len(shards),
        "shard_bytes_written": sum(shard.bytes for shard in shards),
    }
    assert expected.items() <= counters.items()
    outcomes = ("rows_train", "rows_eval", "rows_rejected", "rows_out_of_window", "rows_duplicates")
    assert counters["rows_read"] == sum(rows for name, rows in counters.items() if name.split(":")[0] in outcomes)
