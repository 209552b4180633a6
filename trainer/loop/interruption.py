"""Handles Ctrl-C and SIGTERM during training: save a checkpoint, then exit with a code that is not a failure's."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """Reports that a signal stopped training, which can go on; the message says where.

    `signal_number` is SIGINT or SIGTERM.
    """

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal_number = signal_number

    @property
    def exit_code(self) -> int:
        """Return 130 after Ctrl-C and 143 after SIGTERM, as a shell reports for a process that the signal ended."""
        return 128 + self.signal_number


class PendingSignals:
    """Records the first Ctrl-C or SIGTERM in a `with` block; a second one of the same kind acts as before the block.

    Outside the main thread it records nothing, since Python handles signals in the main thread only.
    """

    def __init__(self) -> None:
        self.received: set[int] = set()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> PendingSignals:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number in self._previous:
            self._restore(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received.add(number)
        self._restore(number)

    def _restore(self, number: int) -> None:
        # None: a handler that was not installed from Python cannot be installed again.
        signal.signal(number, self._previous[number] or signal.SIG_DFL)
