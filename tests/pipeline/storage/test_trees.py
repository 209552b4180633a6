"""Tests listing and copying of directories on a disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.manifest import DotbiasError
from pipeline.storage.trees import copy_tree, list_directories, list_files


def make_source(directory: Path) -> Path:
    (directory / "source" / "variables").mkdir(parents=True)
    (directory / "source" / "saved_model.pb").write_text("graph")
    (directory / "source" / "variables" / "index").write_text("1")
    return directory / "source"


def test_a_copy_has_all_files_and_no_others(tmp_path: Path) -> None:
    source, target = make_source(tmp_path), tmp_path / "serving" / "7"
    target.mkdir(parents=True)
    (target / "old").write_text("")
    copy_tree(str(source), str(target), "saved_model.pb", more={"assets.extra/origin": b"a run"})
    names = [path.removeprefix(f"{target}/") for path in list_files(str(target))]
    assert names == ["assets.extra/origin", "saved_model.pb", "variables/index"]
    assert (target / "assets.extra" / "origin").read_bytes() == b"a run"
    # Nothing is left beside it.
    assert list_directories(str(tmp_path / "serving")) == ["7"]


def test_a_source_that_is_not_complete(tmp_path: Path) -> None:
    source = make_source(tmp_path)
    (source / "saved_model.pb").unlink()
    with pytest.raises(DotbiasError, match=r"has no saved_model\.pb"):
        copy_tree(str(source), str(tmp_path / "target"), "saved_model.pb")
    assert not (tmp_path / "target").exists()


def test_a_failure_in_between_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_source(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", fail)
    with pytest.raises(DotbiasError, match="No space left"):
        copy_tree(str(source), str(tmp_path / "target"), "saved_model.pb")
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]


def test_directories_that_are_not_there(tmp_path: Path) -> None:
    assert list_directories(str(tmp_path / "none")) == []
    assert list_files(str(tmp_path / "none")) == []
