"""Runs a function in a process of its own, which ends before the next one begins.

A process that has taken a TPU keeps it until it ends, and can have one set of embedding tables on it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from pipeline.manifest import DotbiasError, Progress
from trainer.loop.interruption import Interrupted, PendingSignals

_log = logging.getLogger("trainer.train")
# Tells TensorFlow whether to load the library of the TPU; `trainer/__init__.py` says no.
_LOAD_LIBRARY = "TPU_LOAD_LIBRARY"
# Longest time until a signal is passed on.
_POLL_SECONDS = 0.2


def run_alone(function: Callable[..., Any], *arguments: Any, progress: Progress | None) -> Any:
    """Call `function(*arguments, progress)` in a new process that may take the TPU; return what it returns.

    Function, arguments and result have to be picklable. Log messages of the trainer and calls of `progress` come
    through to this process, and SIGINT and SIGTERM go to the other one.

    Raises:
        DotbiasError: the function raised it, or the process died.
        Interrupted: the function raised it.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_call, args=(theirs, function, arguments), daemon=True)
    before = os.environ.get(_LOAD_LIBRARY)
    os.environ[_LOAD_LIBRARY] = "1"
    try:
        process.start()
    finally:
        if before is None:
            del os.environ[_LOAD_LIBRARY]
        else:
            os.environ[_LOAD_LIBRARY] = before
    theirs.close()
    with PendingSignals() as signals:
        try:
            return _listen(ours, process, signals, progress)
        finally:
            # After a second signal of a kind.
            if process.is_alive():
                process.terminate()
            process.join()
            ours.close()


def _listen(connection: Connection, process: Any, signals: PendingSignals, progress: Progress | None) -> Any:
    sent: set[int] = set()
    while True:
        for number in signals.received - sent:
            sent.add(number)
            os.kill(process.pid, number)
        try:
            if not connection.poll(_POLL_SECONDS):
                continue
            kind, *message = connection.recv()
        except EOFError:
            process.join()
            if sent:
                number = min(sent)
                raise Interrupted(number, "stopped; the same command goes on from the last checkpoint") from None
            raise DotbiasError(
                f"The process that trains on the TPU ended with code {process.exitcode}; its last messages are above. "
                "Start the same command again: training goes on from the last checkpoint."
            ) from None
        if kind == "returned":
            return message[0]
        if kind == "failed":
            raise DotbiasError(message[0])
        if kind == "interrupted":
            raise Interrupted(*message)
        if kind == "log":
            _log.log(message[0], "%s", message[1])
        elif progress is not None:
            progress(*message)


def _call(connection: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Call the function and send its result or error; runs in the new process."""
    # Ctrl-C reaches all processes of a terminal's group, and this one is told by the other.
    os.setpgid(0, 0)
    _log.addHandler(_Sender(connection))
    _log.setLevel(logging.INFO)
    _log.propagate = False
    try:
        result = function(*arguments, lambda *done: connection.send(("progress", *done)))
    except Interrupted as interruption:
        connection.send(("interrupted", interruption.signal_number, str(interruption)))
    except DotbiasError as error:
        connection.send(("failed", str(error)))
    else:
        connection.send(("returned", result))


class _Sender(logging.Handler):
    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        self._connection.send(("log", record.levelno, record.getMessage()))
