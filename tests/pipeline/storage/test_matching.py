from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem

from pipeline.storage.matching import check_unchanged, match_input
from pipeline.storage.paths import InputError


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a.csv", "b.csv", "c.csv.gz", "odd[1].csv", "odd1.csv", "deep/er/d.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "link.csv").symlink_to("a.csv")
    (tmp_path / "broken.csv").symlink_to("nowhere.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["a.csv"], ["a.csv"]),
        (["b.csv", "a.csv"], ["a.csv", "b.csv"]),
        (["?.csv"], ["a.csv", "b.csv"]),
        (["*.gz", "?.csv", "a*"], ["a.csv", "b.csv", "c.csv.gz"]),
        # An existing name is taken literally; another one is a pattern.
        (["odd[1].csv"], ["odd[1].csv"]),
        (["odd[12].csv"], ["odd1.csv"]),
        (["**/d.csv"], ["deep/er/d.csv"]),
        # Each file once, whatever it is called.
        (["a.csv", "./a.csv", "link.csv", "b.csv"], ["./a.csv", "b.csv"]),
        (["deep/er/d.csv", "deep/../deep/er/d.csv"], ["deep/../deep/er/d.csv"]),
    ],
)
def test_patterns(patterns: list[str], names: list[str]) -> None:
    assert [file.path for file in match_input(patterns)] == names


def test_what_is_known_of_a_file(directory: Path) -> None:
    os.utime(directory / "a.csv", (1.5, 2.25))
    (file,) = match_input([str(directory / "a.csv")])
    assert file.model_dump() == {"path": str(directory / "a.csv"), "bytes": 5, "modified": 2.25, "in_window": True}


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ([], "no input: name files with `--input"),
        (["nothing*.csv"], r"input 'nothing\*.csv' matches no file \(looked in /"),
        # One good pattern does not make up for another.
        (["a.csv", "nothing.csv"], "input 'nothing.csv' matches no file"),
        (["deep"], "input 'deep' is a directory; name its files: 'deep/\\*'"),
        (["dee*"], "input 'deep' is a directory"),
        (["broken.csv"], "input 'broken.csv' cannot be read: No such file or directory"),
    ],
)
def test_refusals(patterns: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        match_input(patterns)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_a_file_without_permission(directory: Path) -> None:
    (directory / "a.csv").chmod(0)
    with pytest.raises(InputError, match=re.escape("input 'a.csv' cannot be read: Permission denied")):
        match_input(["a.csv"])


class Store(LocalFileSystem):
    """Has objects instead of files: what is asked of a file system when names are matched."""

    # Objects that were asked for one by one.
    asked: ClassVar[list[str]] = []
    objects = ("mem://bucket/odd[1].csv", "mem://bucket/odd1.csv", "mem://bucket/a.csv")

    @classmethod
    def scheme(cls) -> str:
        return "mem"

    def has_dirs(self) -> bool:
        return False

    def exists(self, path: str) -> bool:
        return path in self.objects

    def metadata(self, path: str) -> FileMetadata:
        Store.asked.append(path)
        return FileMetadata(path, 5, 2.25)

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        yield from (FileMetadata(name, 5, 2.25) for name in self.objects if name.startswith(dir_or_prefix))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("odd[1].csv", ["odd[1].csv"]), ("odd[12].csv", ["odd1.csv"]), ("*.csv", ["a.csv", "odd1.csv", "odd[1].csv"])],
)
def test_a_remote_name_that_exists_is_meant_literally(pattern: str, names: list[str]) -> None:
    found = match_input([f"mem://bucket/{pattern}"])
    assert [(file.path, file.bytes) for file in found] == [(f"mem://bucket/{name}", 5) for name in names]
    # The job asks like this whether a file is still the same.
    check_unchanged(found)


def test_remote_files_are_listed_together() -> None:
    found = match_input(["mem://bucket/*"])
    Store.asked.clear()
    check_unchanged(found)
    assert not Store.asked
    with pytest.raises(InputError, match=r"a\.csv has changed since the job began"):
        check_unchanged([*found[1:], found[0].model_copy(update={"bytes": 4})])
