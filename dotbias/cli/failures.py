"""Which failures a user sees as one line, and how that line is found in what Beam makes of an exception."""

from __future__ import annotations

import re
import sys

from pipeline.manifest import DotbiasError


class UsageError(Exception):
    """Wrong flags or configuration, found before any work: one line, exit code 2."""


def explanation(error: BaseException) -> str | None:
    """One line about `error`, or None if there is none (show the traceback then).

    It is the message of the `DotbiasError` behind it, or what Google Cloud answers to a request that it refuses.

    An error of a worker arrives changed. In process Beam appends the step's name; from another process or machine all
    that arrives is a `RuntimeError` whose text is the worker's traceback.
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
    # Who has such an error has the module, and nobody else needs to import it.
    exceptions = sys.modules.get("google.api_core.exceptions")
    return exceptions is not None and isinstance(error, exceptions.ClientError)


def _message_in_traceback(text: str) -> str | None:
    """What the last exception of a printed traceback says, if that is a `DotbiasError`."""
    names = "|".join(re.escape(name) for name in _names_of(DotbiasError))
    ends = [match.end() for match in re.finditer(rf"^(?:{names}): ", text, flags=re.MULTILINE)]
    if not ends:
        return None
    message = text[ends[-1] :]
    if "Traceback (most recent call last)" in message:
        # That one was handled; what failed came afterwards.
        return None
    # A message of several lines ends where Beam names the step; without that, the first line has to do.
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
