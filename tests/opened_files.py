"""Finds which files of a directory are opened, by any process."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# See inotify(7): the flags of `inotify_init1` and of events, and an event's fixed part.
_IN_OPEN, _IN_ISDIR = 0x20, 0x40000000
_EVENT = struct.Struct("iIII")


@contextmanager
def opened_files(directory: Path) -> Iterator[Callable[[], set[Path]]]:
    """Gives a function that returns the files below a directory that have been opened since the start.

    Directories that are made meanwhile are not looked into.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    queue = libc.inotify_init1(os.O_NONBLOCK)
    if queue < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")
    directories = {
        libc.inotify_add_watch(queue, os.fsencode(path), _IN_OPEN): path
        for path in [directory, *directory.rglob("*")]
        if path.is_dir()
    }
    assert -1 not in directories
    opened: set[Path] = set()

    def so_far() -> set[Path]:
        while True:
            try:
                events = os.read(queue, 1 << 16)
            except BlockingIOError:
                return opened
            while events:
                watch, mask, _, length = _EVENT.unpack_from(events)
                name = events[_EVENT.size : _EVENT.size + length].rstrip(b"\0")
                events = events[_EVENT.size + length :]
                if not mask & _IN_ISDIR:
                    opened.add(directories[watch] / os.fsdecode(name))

    try:
        yield so_far
    finally:
        os.close(queue)
