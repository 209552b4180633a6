from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.manifest import DotbiasError
from pipeline.storage.files import delete_tree, write_file

ROOT = Path(__file__).resolve().parents[3]


def test_a_file_is_replaced_and_never_written_in_place(tmp_path: Path) -> None:
    path, temporary = tmp_path / "below" / "file", str(tmp_path / "tmp")
    write_file(str(path), b"first", temporary)
    # A reader that has opened the first file, or a link to it, keeps all of it.
    os.link(path, tmp_path / "link")
    with path.open("rb") as reader:
        write_file(str(path), b"second, which is longer", temporary)
        assert reader.read() == b"first"
    assert (tmp_path / "link").read_bytes() == b"first"
    assert path.read_bytes() == b"second, which is longer"
    assert not list((tmp_path / "tmp").iterdir())


def test_a_file_is_written_beside_itself_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_file("file", b"first")
    write_file("below/file", b"second")
    assert {str(path): path.read_bytes() for path in Path().rglob("file")} == {
        "file": b"first",
        "below/file": b"second",
    }
    assert len(list(Path().rglob("*"))) == 3


def test_a_process_without_isal_can_write(tmp_path: Path) -> None:
    code = "import sys; sys.modules['isal'] = None; from pipeline.storage.files import write_file; write_file('a', b'')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    assert (tmp_path / "a").exists()


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_file(str(path), b"first", str(tmp_path / "tmp"))

    def fail(source: str, target: str) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(DotbiasError, match="file cannot be written: the disk is gone"):
        write_file(str(path), b"second", str(tmp_path / "tmp"))
    assert path.read_bytes() == b"first"


def test_delete_tree(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    delete_tree(str(tmp_path / "a"))
    delete_tree(str(tmp_path / "a"))
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    with pytest.raises(DotbiasError, match="file cannot be deleted: Not a directory"):
        delete_tree(str(tmp_path / "file"))
