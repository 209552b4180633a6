"""Tests locks and deletions on gs://, against an emulator of Cloud Storage."""

from __future__ import annotations

import socket
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from pipeline.storage.lock import Holder
from tests.dataflow.command import ROOT
from tests.dataflow.storage import Storage

# Locks, says what happens, and shows the content of the lock while it is held.
_LOCK = """
import sys
from pipeline.manifest import DotbiasError
from pipeline.storage.conditional import read_versioned
from pipeline.storage.lock import lock
try:
    with lock(sys.argv[1], "run r", owner=sys.argv[2] or None):
        print(read_versioned(sys.argv[1]).data.decode())
except DotbiasError as error:
    print("refused:", error)
"""


def run(bucket: Storage, code: str, *arguments: str) -> str:
    """Runs code in a process that finds gs:// on loopback; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, env=bucket.environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def holder(minutes: float = 0, **fields: object) -> Holder:
    """Describes a process of another machine that renewed its lock so many minutes ago."""
    now = datetime.now(timezone.utc)
    renewed = now - timedelta(minutes=minutes)
    there = {"host": "elsewhere", "process": 7, "started": "1", "since": now - timedelta(hours=1), "renewed": renewed}
    return Holder.model_validate({**there, "owner": "attempt", **fields})


def test_a_lock_is_an_object_while_it_is_held(bucket: Storage) -> None:
    held = Holder.model_validate_json(run(bucket, _LOCK, "gs://bucket/locks/free.lock", ""))
    assert held.host == socket.gethostname()
    assert not bucket.names("locks/free")


@pytest.mark.parametrize(
    # Fields of the holder, which is made when the test runs: it ages while it waits.
    ("fields", "owner", "is_refused"),
    [
        ({}, "", True),
        ({"minutes": 4}, "", True),
        # Not renewed for longer than the limit.
        ({"minutes": 6}, "", False),
        # Held by a process of this machine that has ended, or whose number belongs to another process now.
        ({"host": socket.gethostname(), "process": 2**22 + 1}, "", False),
        ({"host": socket.gethostname(), "process": 1, "started": "not of process 1"}, "", False),
        # A retry of the same job, on another machine.
        ({}, "attempt", False),
    ],
)
def test_who_is_refused(bucket: Storage, fields: dict[str, Any], owner: str, is_refused: bool) -> None:
    found = holder(**fields)
    path = bucket.write("locks/run.lock", found.model_dump_json().encode())
    said = run(bucket, _LOCK, path, owner)
    if is_refused:
        assert said.startswith(
            f"refused: run r is being written by process 7 on elsewhere, since {found.since:%Y-%m-%d}"
        )
        assert bucket.read("locks/run.lock") == found.model_dump_json().encode()
    else:
        assert '"process":' in said
        assert not bucket.names("locks/run")


_RENEW = """
import sys, time
from pipeline.storage import lock as module
from pipeline.storage.conditional import read_versioned
module.RENEW_SECONDS = 0.05
with module.lock(sys.argv[1], "run r"):
    first = read_versioned(sys.argv[1]).data
    end = time.monotonic() + 30
    while read_versioned(sys.argv[1]).data == first and time.monotonic() < end:
        time.sleep(0.05)
    print(read_versioned(sys.argv[1]).data != first)
"""


def test_a_held_lock_is_renewed(bucket: Storage) -> None:
    assert run(bucket, _RENEW, "gs://bucket/locks/renewed.lock") == "True"
    assert not bucket.names("locks/renewed")


# A bucket whose objects may be created but not deleted: Beam logs that and goes on.
_DELETE = """
import sys
from apache_beam.io.gcp.gcsio import GcsIO
from pipeline.manifest import DotbiasError
from pipeline.storage.files import delete_tree
GcsIO.delete_batch = lambda self, paths: [(path, 403) for path in paths]
try:
    delete_tree(sys.argv[1])
    print("deleted")
except DotbiasError as error:
    print(error)
"""


@pytest.mark.slow
def test_objects_that_cannot_be_deleted_are_an_error(bucket: Storage) -> None:
    bucket.write("kept/a", b"a")
    bucket.write("kept/below/b", b"b")
    assert run(bucket, _DELETE, "gs://bucket/kept") == (
        "gs://bucket/kept cannot be deleted: 2 objects are left, such as gs://bucket/kept/a. "
        "Check that you may delete objects there, and rerun."
    )
    assert run(bucket, _DELETE.replace("GcsIO.delete_batch =", "_ ="), "gs://bucket/kept") == "deleted"
    assert not bucket.names("kept/")
