from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from pipeline.config import PipelineConfig
from pipeline.manifest import DotbiasError, InputFile, Shard, read_manifest
from pipeline.output.attempts import WrittenFile, new_attempt, publication_lock, temporary_directory
from pipeline.output.manifest_writer import WriteManifest, info_path, make_manifest
from pipeline.output.shards import WrittenShard
from pipeline.output.tallies import LABEL_UNITS, Tally
from pipeline.storage.files import write_file
from pipeline.storage.lock import lock
from pipeline.storage.matching import match_input
from pipeline.storage.paths import InputError
from pipeline.storage.trees import file_sizes
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
    first_timestamp={"train": 100},
)
SHARDS = [
    WrittenShard("train", Shard(path="train/1", rows=3, bytes=30, crc32=1)),
    WrittenShard("eval", Shard(path="eval/0", rows=2, bytes=20, crc32=2)),
    WrittenShard("train", Shard(path="train/0", rows=5, bytes=50, crc32=3)),
]
INFO = {"user": VocabularyInfo(frequency_threshold=2, size=7, rows=5, fingerprint="f")}


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
        "vocabulary": None,
        "rejected_by_reason": {"bad": 1, "worse": 1},
        "rejected_not_kept": {},
    }
    train, evaluation = manifest.splits["train"], manifest.splits["eval"]
    assert [shard.path for shard in train.shards] == ["train/0", "train/1"]
    assert (train.rows, train.positive_rows, train.label_mean) == (8, 4, 0.5)
    assert (train.first_timestamp, evaluation.first_timestamp) == (100, None)
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
    fields = {"rows": 0, "positive_rows": 0, "label_mean": None, "shards": [], "first_timestamp": None}
    assert evaluation.model_dump() == fields


def test_shards_that_lost_rows() -> None:
    with pytest.raises(DotbiasError, match="the train shards hold 5 rows, but 8 were sent to them"):
        make_manifest(CONFIG, FILES, INTERACTIONS, ENCODED, SHARDS[1:], INFO)


OTHERS = [WrittenFile("rejected/part-0", 7), WrittenFile("transform_fn/saved_model.pb", 9)]
FILES_OF_THE_ATTEMPT = {
    **{shard.shard.path: shard.shard.bytes for shard in SHARDS},
    **{other.name: other.bytes for other in OTHERS},
    "vocabulary/user.txt": 14,
    "vocabulary/user.counts.txt": 14,
}


class Attempt:
    """Makes an attempt at `dataset` that has written its files."""

    def __init__(self, dataset: Path, files: list[InputFile], config: PipelineConfig = CONFIG) -> None:
        self.dataset, self.directory = dataset, Path(new_attempt(str(dataset), on_a_service=True))
        self.files, self.config = files, config
        temporary = temporary_directory(str(self.directory))
        write_file(info_path(temporary, "user"), INFO["user"].model_dump_json().encode(), temporary)
        for name, size in FILES_OF_THE_ATTEMPT.items():
            write_file(str(self.directory / name), bytes(size), temporary)

    def publish(self, interactions: Tally = INTERACTIONS) -> None:
        with beam.Pipeline(FnApiRunner()) as pipeline:
            inputs = (
                pipeline | "Interactions" >> beam.Create([interactions]),
                pipeline | "Encoded" >> beam.Create([ENCODED]),
                pipeline | "Shards" >> beam.Create(SHARDS),
            )
            others = pipeline | "Others" >> beam.Create(OTHERS)
            path = inputs | WriteManifest(str(self.dataset), str(self.directory), self.config, self.files, others)
            assert_that(path, equal_to([str(self.dataset / "manifest.json")]))

    def assert_published(self) -> None:
        expected = make_manifest(self.config, self.files, INTERACTIONS, ENCODED, SHARDS, INFO)
        assert read_manifest(str(self.dataset)) == expected
        sizes = file_sizes(str(self.dataset))
        del sizes["manifest.json"]
        assert sizes == FILES_OF_THE_ATTEMPT


@pytest.fixture
def files(tmp_path: Path) -> list[InputFile]:
    (tmp_path / "log.csv").write_text("1,2")
    return match_input([str(tmp_path / "log.csv")])


@pytest.fixture
def attempt(tmp_path: Path, files: list[InputFile]) -> Attempt:
    return Attempt(tmp_path / "dataset", files)


def test_write_manifest(attempt: Attempt) -> None:
    # Left by an attempt that was killed while it was published.
    (attempt.dataset / "train").mkdir()
    (attempt.dataset / "train" / "9").write_bytes(b"stale")
    (attempt.dataset / "train" / "0").write_bytes(b"stale")
    attempt.publish()
    attempt.assert_published()
    # Only the job needed the rest.
    assert not (attempt.dataset / ".tmp").exists()


def test_a_retry_after_the_manifest_was_written(attempt: Attempt) -> None:
    attempt.publish()
    attempt.publish()
    attempt.assert_published()


@pytest.mark.parametrize("calls", range(0, 8, 2))
def test_a_retry_after_an_interruption(attempt: Attempt, monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    replace, done = os.replace, []

    def fail(source: str, target: str) -> None:
        done.append(target)
        if len(done) > calls:
            raise OSError("the machine is lost")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(DotbiasError, match="the machine is lost"):
            attempt.publish()
    assert not (attempt.dataset / "manifest.json").exists()
    attempt.publish()
    attempt.assert_published()


def test_cleaning_up_may_fail(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(directory: str) -> None:
        raise DotbiasError(f"{directory} cannot be deleted")

    monkeypatch.setattr("pipeline.output.attempts.delete_tree", fail)
    attempt.publish()
    assert read_manifest(str(attempt.dataset)).counts.read == 12
    assert "the dataset is complete, but leftovers remain" in caplog.text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "train/0 is missing, although this job has written it"),
        (lambda path: path.write_bytes(b"other"), "train/0 has 5 bytes instead of 50, although"),
    ],
)
def test_no_manifest_of_shards_that_are_not_as_they_were_written(
    attempt: Attempt, damage: Callable[[Path], object], message: str
) -> None:
    damage(attempt.directory / "train" / "0")
    with pytest.raises(DotbiasError) as error:
        attempt.publish()
    assert message in str(error.value)
    assert not (attempt.dataset / "manifest.json").exists()


def test_of_two_attempts_one_is_published_and_the_other_says_so(
    attempt: Attempt, files: list[InputFile], caplog: pytest.LogCaptureFixture
) -> None:
    second, other = (
        Attempt(attempt.dataset, files),
        Attempt(attempt.dataset, files, CONFIG.model_copy(update={"seed": 1})),
    )
    attempt.publish()
    assert not caplog.records
    second.publish()
    assert "dataset was complete already, from another attempt" in caplog.text
    with pytest.raises(DotbiasError, match=r"was made with `pipeline\.seed` 42, not 1"):
        other.publish()
    # The files of that attempt still exist, and do no harm.
    assert (other.directory / "train" / "0").stat().st_size == 50
    shutil.rmtree(other.directory)
    attempt.assert_published()


def test_an_attempt_that_is_being_published_keeps_others_out(attempt: Attempt) -> None:
    with (
        lock(publication_lock(str(attempt.dataset)), "dataset d"),
        pytest.raises(DotbiasError, match="is being written by process"),
    ):
        attempt.publish()
    assert not (attempt.dataset / "manifest.json").exists()


def test_no_manifest_of_passes_that_saw_different_rows(attempt: Attempt) -> None:
    with pytest.raises(DotbiasError, match="the input changed while it was read"):
        attempt.publish(Tally(Counter(read=13, train=9, eval=2), Counter(worse=1, bad=1)))
    assert not (attempt.dataset / "manifest.json").exists()


def test_no_manifest_of_a_file_that_changed(attempt: Attempt) -> None:
    os.utime(attempt.files[0].path, (1, 1))
    with pytest.raises(InputError, match=r"log\.csv has changed since the job began"):
        attempt.publish()
    assert not (attempt.dataset / "manifest.json").exists()
