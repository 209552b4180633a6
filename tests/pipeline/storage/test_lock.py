"""Tests locks on a disk; tests/dataflow/test_lock.py has gs://."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.storage.lock import LockedError, UnwritableError, lock

_HOLD = """
import sys
from pipeline.storage.lock import lock
with lock(sys.argv[1], "run r"):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """Starts a process that holds the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    path = tmp_path / "below" / "run.lock"
    with holder(path) as process:
        with pytest.raises(LockedError) as refused, lock(str(path), "run r"):
            pass
        since = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
        said = rf"run r is being written by process {process.pid} on \S+, since {since}\. Wait"
        assert re.match(said, str(refused.value))
        # The refused one has left the lock as it was.
        assert path.exists()
    assert process.returncode == 0
    assert not path.exists()
    with lock(str(path), "run r"):
        assert path.exists()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with holder(path) as process:
        process.send_signal(signal.SIGKILL)
    assert str(process.pid) in path.read_text()
    with lock(str(path), "run r"):
        assert str(os.getpid()) in path.read_text()
    assert not path.exists()


def test_an_error_releases_the_lock(tmp_path: Path) -> None:
    path = str(tmp_path / "run.lock")
    with pytest.raises(ZeroDivisionError), lock(path, "run r"):
        _ = 1 / 0
    with lock(path, "run r"):
        pass


_COUNT = """
import sys, time
from pipeline.storage.lock import LockedError, lock
path, file = sys.argv[1:]
done = 0
while done < 40:
    try:
        with lock(path, "run r"):
            count = int(open(file).read())
            time.sleep(0.001)
            open(file, "w").write(str(count + 1))
            done += 1
    except LockedError:
        time.sleep(0.001)
"""


def test_never_two_at_once(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", _COUNT, str(tmp_path / "run.lock"), str(tmp_path / "count")]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "120"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(UnwritableError, match=r"file/runs cannot be written: Not a directory\."),
        lock(str(tmp_path / "file" / "runs" / "run.lock"), "run r"),
    ):
        pass
