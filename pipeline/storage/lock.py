"""Keeps a second writer out of a directory, and says who the first one is."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

from pydantic import BaseModel, ValidationError

from pipeline.manifest import DotbiasError
from pipeline.storage.conditional import Versioned, delete_if_unchanged, read_versioned, write_if_unchanged
from pipeline.storage.paths import is_remote

_LOGGER = logging.getLogger(__name__)

# A lock on gs:// that is not renewed for EXPIRES is taken over; ten renewals may fail before that.
RENEW_SECONDS = 30.0
EXPIRES = timedelta(minutes=5)


class LockedError(DotbiasError):
    """Says which process writes to the same place."""


class UnwritableError(DotbiasError):
    """Says that nothing can be written at a place."""


class Holder(BaseModel):
    """Describes who holds a lock; the content of the lock file. `started` tells processes of one id apart."""

    host: str
    process: int
    started: str
    since: datetime
    renewed: datetime
    owner: str

    def says(self) -> str:
        """Names the process, for messages."""
        return f"process {self.process} on {self.host}, since {self.since:%Y-%m-%d %H:%M:%S} UTC"


# Releases of the locks that this process holds, by path.
_held: dict[str, Callable[[], None]] = {}


@contextmanager
def lock(path: str, what: str, owner: str | None = None) -> Iterator[None]:
    """Holds the lock file `path` while the block runs.

    On a disk the kernel holds the lock and drops it when the process ends. On gs:// the lock is an object, created only
    if there is none and renewed by a thread. It is taken over from a process of this host that has ended, and from any
    process that has not renewed it for five minutes. Other stores have no conditional write and are not locked.

    Args:
        path: the lock file; deleted at the end.
        what: what is written, for messages, such as "run out/runs/2026-11-24".
        owner: on gs://, a holder of the same name is replaced at once: for the retries of one job on several machines.

    Raises:
        LockedError: another process holds the lock.
        UnwritableError: the lock file cannot be written.
    """
    now = datetime.now(timezone.utc)
    me = Holder(
        host=socket.gethostname(),
        process=os.getpid(),
        started=_started(os.getpid()),
        since=now,
        renewed=now,
        owner=owner or uuid.uuid4().hex,
    )
    if not is_remote(path):
        release = _lock_file(path, what, me)
    elif path.startswith("gs://"):
        release = _lock_object(path, what, me)
    else:
        yield
        return
    _held[path] = release
    try:
        yield
    finally:
        del _held[path]
        try:
            release()
        except Exception as error:
            _LOGGER.warning("the lock %s cannot be deleted: %s", path, error)


def release_locks() -> None:
    """Releases all locks of this process; for a process that is about to end without unwinding."""
    for release in list(_held.values()):
        with contextlib.suppress(Exception):
            release()


def _lock_file(path: str, what: str, me: Holder) -> Callable[[], None]:
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        file = _open_locked(path, what)
        os.ftruncate(file, 0)
        os.pwrite(file, me.model_dump_json().encode(), 0)
    except OSError as error:
        raise UnwritableError(f"{os.path.dirname(path)} cannot be written: {error.strerror or error}.") from error

    def release() -> None:
        try:
            os.unlink(path)
        finally:
            os.close(file)

    return release


def _open_locked(path: str, what: str) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A holder deletes the file at its end; a lock on a deleted file keeps nobody out.
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        except BlockingIOError:
            data = os.pread(file, 10_000, 0)
            os.close(file)
            raise LockedError(_refusal(what, data)) from None
        except FileNotFoundError:
            pass
        os.close(file)


def _lock_object(path: str, what: str, me: Holder) -> Callable[[], None]:
    try:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError

        seen = read_versioned(path)
        if seen.data is not None and not _may_replace(seen.data, me):
            raise LockedError(_refusal(what, seen.data))
        if not write_if_unchanged(path, seen, me.model_dump_json().encode()):
            raise LockedError(_refusal(what, read_versioned(path).data or b""))
    except ImportError as error:
        _LOGGER.warning("%s is not locked against a second writer, since %s is not installed", what, error.name)
        return lambda: None
    except (GoogleAPIError, GoogleAuthError) as error:
        raise UnwritableError(f"{path} cannot be written: {error}.") from error
    done = threading.Event()

    def renew() -> None:
        while not done.wait(RENEW_SECONDS):
            try:
                mine = _mine(path, me)
                if mine is None:
                    _LOGGER.error("%s: another process has taken the lock %s over", what, path)
                    return
                renewed = me.model_copy(update={"renewed": datetime.now(timezone.utc)})
                write_if_unchanged(path, mine, renewed.model_dump_json().encode())
            except Exception as error:
                # The next renewal may succeed in time.
                _LOGGER.warning("the lock %s cannot be renewed: %s", path, error)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()

    def release() -> None:
        done.set()
        mine = _mine(path, me)
        if mine is not None:
            delete_if_unchanged(path, mine)

    return release


def _mine(path: str, me: Holder) -> Versioned | None:
    """Returns the lock object if it is still held by `me`."""
    seen = read_versioned(path)
    holder = None if seen.data is None else _parse(seen.data)
    return seen if holder is not None and (holder.owner, holder.since) == (me.owner, me.since) else None


def _may_replace(data: bytes, me: Holder) -> bool:
    holder = _parse(data)
    if holder is None or holder.owner == me.owner or me.since - holder.renewed > EXPIRES:
        return True
    return holder.host == me.host and _started(holder.process) != holder.started


def _started(process: int) -> str:
    """Returns when a process of this host started, in the kernel's ticks; empty if there is none."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            # The name of the program, in parentheses, may hold blanks.
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    if os.path.exists("/proc/self/stat"):
        return ""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "unknown"


def _parse(data: bytes) -> Holder | None:
    try:
        return Holder.model_validate_json(data)
    except ValidationError:
        return None


def _refusal(what: str, data: bytes) -> str:
    holder = _parse(data)
    by = "another process" if holder is None else holder.says()
    return f"{what} is being written by {by}. Wait until it ends, or choose another --run_id."
