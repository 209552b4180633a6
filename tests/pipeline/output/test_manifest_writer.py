from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from pipeline.config import PipelineConfig
from pipeline.input.matching import match_input
from pipeline.manifest import DotbiasError, InputFile, Shard, read_manifest
from pipeline.output.manifest_writer import WriteManifest, info_path, make_manifest
from pipeline.output.shards import WrittenShard
from pipeline.output.tallies import LABEL_UNITS, Tally
from pipeline.storage.files import write_file
from pipeline.storage.paths import InputError
from pipeline.vocabulary.frequency import VocabularyInfo

CONFIG = PipelineConfig.model_validate(
    {
        "columns": {"user": "string", "item": "string", "rating": "float32", "at": "int64"},
        "label": {"column": "rating", "threshold": 4.0},
        "features": {
            "user": {"side": "user", "num_oov_buckets": 3},
            "item": {"side": "item", "encoding": "hashing"},
        },
        "timestamp_column": "at",
    }
)
FILES = [InputFile(path="a.csv", bytes=500, modified=0.5)]
INTERACTIONS = Tally(Counter(read=12, train=8, eval=2), Counter(worse=1, bad=1))
ENCODED = Tally(
    rows=Counter(train=8, eval=2),
    positive_rows=Counter(train=4),
    label_sums=Counter(train=4 * LABEL_UNITS),
    oov_rows=Counter({("user", "train"): 3}),
)
SHARDS = [
    WrittenShard("train", Shard(path="train/1", rows=3, bytes=30, crc32=1)),
    WrittenShard("eval", Shard(path="eval/0", rows=2, bytes=20, crc32=2)),
    WrittenShard("train", Shard(path="train/0", rows=5, bytes=50, crc32=3)),
]
INFO = {"user": VocabularyInfo(size=7, rows=5, fingerprint="f")}


def test_what_the_manifest_says() -> None:
    manifest = make_manifest(CONFIG, FILES, INTERACTIONS, ENCODED, SHARDS, INFO)
    assert [(c.name, c.dtype, c.role) for c in manifest.columns] == [
        # A vocabulary makes indices, hashing leaves tokens.
        ("user", "int64", "feature"),
        ("item", "string", "feature"),
        ("label", "float32", "label"),
        ("at", "int64", "timestamp"),
    ]
    assert manifest.counts.model_dump() == {
        "read": 12,
        "train": 8,
        "eval": 2,
        "rejected": 2,
        "out_of_window": 0,
        "duplicates": 0,
        "rejected_by_reason": {"bad": 1, "worse": 1},
    }
    train, evaluation = manifest.splits["train"], manifest.splits["eval"]
    assert [shard.path for shard in train.shards] == ["train/0", "train/1"]
    assert (train.rows, train.positive_rows, train.label_mean) == (8, 4, 0.5)
    assert (evaluation.rows, evaluation.positive_rows, evaluation.label_mean) == (2, 0, 0.0)
    assert manifest.label.model_dump() == {
        "column": "rating",
        "threshold": 4.0,
        "scale": None,
        "soft_weight": None,
        "positive_at": 1.0,
    }
    user, item = manifest.features["user"], manifest.features["item"]
    assert (user.num_indices, user.token_dtype, user.oov_rows) == (10, "string", {"train": 3, "eval": 0})
    assert (user.vocabulary_path, user.fingerprint) == ("vocabulary/user.txt", "f")
    assert (item.encoding, item.token_dtype, item.vocabulary_size) == ("hashing", "string", None)
    assert manifest.input == FILES
    assert manifest.config == CONFIG.model_dump(mode="json")


def test_a_split_without_rows() -> None:
    interactions = Tally(Counter(read=8, train=8))
    encoded = Tally(rows=Counter(train=8), label_sums=Counter(train=4 * LABEL_UNITS), positive_rows=Counter(train=4))
    shards = [shard for shard in SHARDS if shard.split == "train"]
    evaluation = make_manifest(CONFIG, FILES, interactions, encoded, shards, INFO).splits["eval"]
    assert evaluation.model_dump() == {"rows": 0, "positive_rows": 0, "label_mean": None, "shards": []}


def test_shards_that_lost_rows() -> None:
    with pytest.raises(DotbiasError, match="the train shards hold 5 rows, but 8 were sent to them"):
        make_manifest(CONFIG, FILES, INTERACTIONS, ENCODED, SHARDS[1:], INFO)


def write(directory: Path, files: list[InputFile], interactions: Tally = INTERACTIONS) -> None:
    temporary = str(directory / ".tmp")
    write_file(info_path(temporary, "user"), INFO["user"].model_dump_json().encode(), temporary)
    with beam.Pipeline(FnApiRunner()) as pipeline:
        inputs = (
            pipeline | "Interactions" >> beam.Create([interactions]),
            pipeline | "Encoded" >> beam.Create([ENCODED]),
            pipeline | "Shards" >> beam.Create(SHARDS),
        )
        after = pipeline | "After" >> beam.Create([None])
        path = inputs | WriteManifest(str(directory), temporary, CONFIG, files, after)
        assert_that(path, equal_to([str(directory / "manifest.json")]))


@pytest.fixture
def files(tmp_path: Path) -> list[InputFile]:
    (tmp_path / "log.csv").write_text("1,2")
    return match_input([str(tmp_path / "log.csv")])


def test_write_manifest(tmp_path: Path, files: list[InputFile]) -> None:
    dataset = tmp_path / "dataset"
    write(dataset, files)
    assert read_manifest(str(dataset)) == make_manifest(CONFIG, files, INTERACTIONS, ENCODED, SHARDS, INFO)
    # What only the job needed is gone.
    assert [path.name for path in dataset.iterdir()] == ["manifest.json"]


def test_no_manifest_of_passes_that_saw_different_rows(tmp_path: Path, files: list[InputFile]) -> None:
    with pytest.raises(DotbiasError, match="the input changed while it was read"):
        write(tmp_path, files, Tally(Counter(read=13, train=9, eval=2), Counter(worse=1, bad=1)))
    assert not (tmp_path / "manifest.json").exists()


def test_no_manifest_of_a_file_that_changed(tmp_path: Path, files: list[InputFile]) -> None:
    os.utime(files[0].path, (1, 1))
    with pytest.raises(InputError, match=r"log\.csv has changed since the job began"):
        write(tmp_path, files)
    assert not (tmp_path / "manifest.json").exists()
