from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.manifest import DotbiasError
from tests.trainer.conftest import SIDES, random_rows
from tests.trainer.data.test_reader import Row, rows_of
from tests.trainer.datasets import write_dataset
from tests.trainer.runs import Finished, Killed, assert_same_weights, without_times
from trainer.config import TrainerConfig
from trainer.data.cache import close_cache, memory_of_cache, open_cache
from trainer.data.dataset import Dataset
from trainer.data.reader import Shuffle, read_batches
from trainer.train import train

KINDS = pytest.mark.parametrize("kind", ["memory", pytest.param("disk", marks=pytest.mark.slow)])


@pytest.fixture
def cached(dataset: Dataset, tmp_path: Path, kind: Any) -> Iterator[Dataset]:
    opened = open_cache(dataset, kind, str(tmp_path / "model"))
    yield opened
    close_cache(opened)


def read_both(data: Dataset, shuffle: Shuffle) -> list[Row]:
    return rows_of(read_batches(data, "train", 64, shuffle=shuffle)) + rows_of(read_batches(data, "eval", 64))


@KINDS
def test_rows_and_their_order_are_those_of_the_reader_without_a_cache(dataset: Dataset, cached: Dataset) -> None:
    # The last shuffle begins in the middle of an epoch, with some shards read and some not.
    for shuffle in (Shuffle(5, epochs=2, first_epoch=1, skip_steps=5), Shuffle(5, epochs=3), Shuffle(6, 1, 0, 3)):
        assert read_both(cached, shuffle) == read_both(dataset, shuffle)


@KINDS
def test_a_shard_is_decoded_once(dataset: Dataset, cached: Dataset) -> None:
    expected = [read_both(cached, Shuffle(5, epochs=1)), read_both(cached, Shuffle(6, epochs=2))]
    for split in ("train", "eval"):
        shutil.rmtree(Path(dataset.path) / split)
    assert [read_both(cached, Shuffle(5, epochs=1)), read_both(cached, Shuffle(6, epochs=2))] == expected


def test_without_a_cache_shards_are_kept_if_they_are_small(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_cache(dataset, "none", "model")
    assert opened.cache is not None and opened.cache.startswith("ram://")
    close_cache(opened)
    monkeypatch.setattr("trainer.data.cache._SMALL_CACHE", memory_of_cache(dataset, "memory") - 1)
    assert open_cache(dataset, "none", "model").cache is None


@pytest.mark.parametrize("written", [0, 5, 60, 700])
def test_a_shard_that_is_being_written_is_decoded_again(dataset: Dataset, tmp_path: Path, written: int) -> None:
    opened = open_cache(dataset, "disk", str(tmp_path / "model"))
    expected = read_both(opened, Shuffle(5, epochs=1))
    shard = Path(opened.cache_file(dataset.split("train").shards[0].path))
    shard.write_bytes(shard.read_bytes()[:written])
    assert read_both(opened, Shuffle(5, epochs=1)) == expected
    close_cache(opened)


def test_hashed_tokens_are_kept_as_bins(tmp_path: Path) -> None:
    write_dataset(tmp_path, random_rows(250, 1, True), random_rows(20, 2, True), SIDES, hashed=["userId"])
    data = Dataset.open(str(tmp_path), TrainerConfig.model_validate({"hashing": {"userId": {"num_bins": 11}}}))
    opened = open_cache(data, "memory", str(tmp_path / "model"))
    expected = read_both(data, Shuffle(5, epochs=1))
    assert read_both(opened, Shuffle(5, epochs=1)) == read_both(opened, Shuffle(5, epochs=1)) == expected
    close_cache(opened)


def test_a_url_has_its_cache_in_the_local_temporary_directory(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    opened = open_cache(dataset, "disk", "ram://model")
    assert opened.cache is not None and Path(opened.cache).parent == tmp_path
    close_cache(opened)
    assert not Path(opened.cache).exists()


@pytest.mark.parametrize(("kind", "size"), [("none", 0), ("disk", 0), ("memory", (550 + 90) * 3 * 4)])
def test_memory_of_cache(dataset: Dataset, kind: str, size: int) -> None:
    assert memory_of_cache(dataset, kind) == size


@pytest.mark.slow
@KINDS
def test_a_training_that_was_killed_goes_on_to_the_same_weights(finished: Finished, tmp_path: Path, kind: str) -> None:
    def die(stage: str, done: int, total: int | None, metrics: Mapping[str, float]) -> None:
        if done == 550 + 384:
            raise Killed

    config = finished.config.model_copy(update={"cache": kind})
    often = config.model_copy(update={"checkpoint": config.checkpoint.model_copy(update={"every_steps": 1})})
    with pytest.raises(Killed):
        train(finished.data.path, str(tmp_path), often, die)
    # A killed process may leave half a file, or files of another dataset.
    shard = tmp_path / "cache-0" / finished.data.split("train").shards[0].path
    shard.parent.mkdir(parents=True)
    shard.write_text("of another dataset")
    result = train(finished.data.path, str(tmp_path), config)
    assert_same_weights(tmp_path, finished.model_dir)
    assert without_times(result) | {"config": None} == without_times(finished.result) | {"config": None}
    assert not list(tmp_path.glob("cache-*"))


def test_a_cache_that_is_lost_is_named(finished: Finished, tmp_path: Path) -> None:
    def lose(*_: Any) -> None:
        shutil.rmtree(tmp_path / "cache-0", ignore_errors=True)

    config = finished.config.model_copy(update={"cache": "disk"})
    with pytest.raises(DotbiasError, match=r"cache of decoded shards in .*cache-0 cannot be .*`trainer.cache: none`"):
        train(finished.data.path, str(tmp_path), config, lose)


def test_a_cache_that_cannot_be_made_is_named(dataset: Dataset, tmp_path: Path) -> None:
    # A disk that is full from the start fails at the same place.
    (tmp_path / "file").touch()
    with pytest.raises(DotbiasError) as raised:
        open_cache(dataset, "disk", str(tmp_path / "file"))
    assert str(raised.value) == (
        f"The cache of decoded shards in {tmp_path / 'file'}/cache-0 cannot be written or read "
        "(FailedPreconditionError). Make space there or set `trainer.cache: none`."
    )
