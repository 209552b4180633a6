"""Finds the line that explains a failure to the user, also inside the errors that Beam wraps around it."""

from __future__ import annotations

import re
import sys

from pipeline.manifest import DotbiasError


class UsageError(Exception):
    """Says what is wrong with flags or configuration, before any work: one line, exit code 2."""


def explanation(error: BaseException) -> str | None:
    """Returns one line about `error`, or None if nothing explains it; show the traceback then.

    The line is the message of the `DotbiasError` behind the error, or the answer of Google Cloud to a refused request.

    Beam changes the error of a worker. In process it appends the step's name; from another process or machine it makes
    a `RuntimeError` whose text is the worker's traceback.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, DotbiasError):
            return _one_line(_without_step(str(current)))
        if _is_of_google(current):
            return f"Google Cloud refuses: {_one_line(str(current))}"
        message = _message_in_traceback(str(current))
        if message is not None:
            return _one_line(message)
        current = current.__cause__
    return None


def _is_of_google(error: BaseException) -> bool:
    # Such an error exists only if its module is imported.
    exceptions = sys.modules.get("google.api_core.exceptions")
    return exceptions is not None and isinstance(error, exceptions.ClientError)


def _message_in_traceback(text: str) -> str | None:
    """Returns the message of the last exception of a printed traceback if that is a `DotbiasError`."""
    names = "|".join(re.escape(name) for name in _names_of(DotbiasError))
    ends = [match.end() for match in re.finditer(rf"^(?:{names}): ", text, flags=re.MULTILINE)]
    if not ends:
        return None
    message = text[ends[-1] :]
    if "Traceback (most recent call last)" in message:
        # That error was handled; another one came after it.
        return None
    # A message of several lines ends where Beam names the step; without a step, the first line is taken.
    return _without_step(message) if " [while running '" in message else message.splitlines()[0]


def _names_of(error: type[DotbiasError]) -> list[str]:
    names = [f"{error.__module__}.{error.__qualname__}"]
    for subclass in error.__subclasses__():
        names += _names_of(subclass)
    return names


def _without_step(message: str) -> str:
    return message.split(" [while running '", maxsplit=1)[0]


def _one_line(message: str) -> str:
    return " ".join(message.split())
