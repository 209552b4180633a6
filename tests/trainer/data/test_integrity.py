from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.manifest import DotbiasError
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.integrity import READER_ERRORS, check_shards, find_fault
from trainer.data.reader import Shuffle, read_batches
from trainer.train import train

SHARD = "train/part-00002-of-00006.csv.gz"


def rewrite(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    path.write_bytes(gzip.compress(("\n".join(change(lines)) + "\n").encode()))


def test_a_missing_shard_is_named(dataset: Dataset) -> None:
    Path(dataset.file(SHARD)).unlink()
    with pytest.raises(DotbiasError, match=f"{SHARD} is missing"):
        check_shards(dataset, "train", checksums=False)


def test_another_size_is_named(dataset: Dataset) -> None:
    path = Path(dataset.file(SHARD))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DotbiasError, match=f"{SHARD} has .* bytes; the manifest says"):
        check_shards(dataset, "train", checksums=False)


def test_another_checksum_is_named(dataset: Dataset) -> None:
    path = Path(dataset.file(SHARD))
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    check_shards(dataset, "train", checksums=False)
    with pytest.raises(DotbiasError, match=f"{SHARD} has checksum"):
        check_shards(dataset, "train", checksums=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "99 rows; the manifest says 100"),
        (lambda lines: [*lines, lines[0]], "101 rows; the manifest says 100"),
        (lambda lines: [*lines[:41], "100000,0,0.5", *lines[42:]], r"row 42: column 'userId' .* \[0, .* '100000'"),
        (lambda lines: [*lines[:41], "-1,0,0.5", *lines[42:]], r"row 42: column 'userId' .* '-1'"),
        (lambda lines: [*lines[:41], "0,x,0.5", *lines[42:]], r"row 42: column 'movieId' should be a number"),
        (lambda lines: [*lines[:41], "0,,0.5", *lines[42:]], r"row 42: column 'movieId' should be a number"),
        (lambda lines: [*lines[:41], "0,0,1.5", *lines[42:]], r"row 42: column 'label' should be in \[0, 1\]"),
        (lambda lines: [*lines[:41], "0,0,nan", *lines[42:]], r"row 42: column 'label'"),
        (lambda lines: [*lines[:41], "0,0", *lines[42:]], "row 42: 2 columns instead of 3"),
    ],
)
def test_what_stops_the_reader_is_found_by_file_and_row(
    dataset: Dataset, change: Callable[[list[str]], list[str]], message: str
) -> None:
    rewrite(Path(dataset.file(SHARD)), change)
    with pytest.raises(READER_ERRORS):
        list(read_batches(dataset, "train", 64, shuffle=Shuffle(seed=1, epochs=1)))
    assert re.search(f"{SHARD}.*{message}", find_fault(dataset, "train") or "")


def test_a_truncated_gzip_file_is_named(dataset: Dataset) -> None:
    path = Path(dataset.file(SHARD))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(READER_ERRORS):
        list(read_batches(dataset, "train", 64))
    assert "cut off" in (find_fault(dataset, "train") or "")


def test_a_healthy_split_has_no_fault(dataset: Dataset) -> None:
    assert find_fault(dataset, "train") is None


def test_training_names_the_row_and_exports_nothing(dataset: Dataset, tmp_path: Path, config: TrainerConfig) -> None:
    # Same size and, not looked at, another checksum: only reading can find it.
    rewrite(Path(dataset.file(SHARD)), lambda lines: [*lines[:41], "100000,0,0.5", *lines[42:]])
    manifest = Path(dataset.file("manifest.json"))
    old = next(s for s in dataset.split("train").shards if s.path == SHARD)
    size = Path(dataset.file(SHARD)).stat().st_size
    manifest.write_text(
        manifest.read_text().replace(
            f'"bytes": {old.bytes},\n          "crc32": {old.crc32}',
            f'"bytes": {size},\n          "crc32": {old.crc32}',
        )
    )
    config = config.model_copy(update={"verify_checksums": False})
    with pytest.raises(DotbiasError, match=f"{SHARD}, row 42"):
        train(dataset.path, str(tmp_path / "model"), config)
    assert not (tmp_path / "model" / "export").exists()
    assert not (tmp_path / "model" / "metrics.json").exists()
