"""Tests conditional writes on a disk; tests/dataflow/test_storage.py has gs://."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from pipeline.manifest import DotbiasError
from pipeline.storage.conditional import Versioned, read_versioned, write_if_unchanged


def test_a_file_is_replaced_only_if_it_is_as_it_was_seen(tmp_path: Path) -> None:
    path = str(tmp_path / "below" / "file.json")
    nothing = read_versioned(path)
    assert nothing.data is None
    assert write_if_unchanged(path, nothing, b"first")
    assert not write_if_unchanged(path, nothing, b"second")
    assert read_versioned(path).data == b"first"
    assert write_if_unchanged(path, read_versioned(path), b"second")
    assert read_versioned(path).data == b"second"


def _increment(path: str, times: int) -> None:
    done = 0
    while done < times:
        seen = read_versioned(path)
        done += write_if_unchanged(path, seen, str(int(seen.data or b"0") + 1).encode())


def test_no_write_of_several_processes_is_lost(tmp_path: Path) -> None:
    path = str(tmp_path / "counter")
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_increment, args=(path, 50)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert read_versioned(path).data == b"150"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["counter", "counter.lock"]


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DotbiasError, match=r"file/champion\.json cannot be"):
        write_if_unchanged(str(tmp_path / "file" / "champion.json"), Versioned(None), b"x")


def test_a_store_without_conditional_writes() -> None:
    with pytest.raises(DotbiasError, match="use gs:// or a local directory"):
        read_versioned("s3://bucket/champion.json")
