"""Ends the command on Ctrl-C and SIGTERM with one line and the exit code that a shell expects."""

from __future__ import annotations

import glob
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from dotbias.cli.program import program_name

_STOPPED = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
# A lock on gs:// takes a request or two.
_SECONDS_TO_RELEASE = 5.0


@contextmanager
def end_on_signals() -> Iterator[None]:
    """Ends the process on Ctrl-C (130) or SIGTERM (143) while the block runs.

    The handler does not raise an exception, since Beam would wrap it in errors of its own, and threads and worker
    processes would go on or wait for each other. Training replaces the handlers while it has a checkpoint to save.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Standard error may be redirected when the signal comes.
    stderr, process = os.dup(2), os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        # A second signal must not interrupt what follows.
        for other in _STOPPED:
            signal.signal(other, signal.SIG_IGN)
        if os.getpid() == process:
            start = "\n" if os.isatty(stderr) else ""
            said = f"{_STOPPED[signal.Signals(number)]}; start the same command again to go on from what is complete"
            with suppress(OSError):
                os.write(stderr, f"{start}{program_name()}: stopped: {said}\n".encode())
            _kill_children()
            _release_locks()
        os._exit(128 + number)

    before = {number: signal.signal(number, end) for number in _STOPPED}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: a handler that was not installed from Python cannot be installed again.
            signal.signal(number, handler or signal.SIG_DFL)
        os.close(stderr)


def _kill_children() -> None:
    """Kills Beam's worker processes, which would go on without this one; Linux lists them."""
    for path in glob.glob("/proc/self/task/*/children"):
        with suppress(OSError), open(path) as file:
            for child in file.read().split():
                os.kill(int(child), signal.SIGKILL)


def _release_locks() -> None:
    release = getattr(sys.modules.get("pipeline.storage.lock"), "release_locks", None)
    if release is not None:
        # In a thread, since the interrupted code may hold a lock that the release waits for.
        thread = threading.Thread(target=release, daemon=True)
        thread.start()
        thread.join(_SECONDS_TO_RELEASE)
