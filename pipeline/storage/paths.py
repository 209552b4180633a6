"""Tells local paths from URLs of a store, and explains the errors of a store."""

from __future__ import annotations

from pipeline.manifest import DotbiasError


class InputError(DotbiasError):
    """Says that the input is not there or cannot be read."""


def is_remote(path: str) -> bool:
    """Returns whether a path is a URL."""
    return "://" in path


def can_be_locked(path: str) -> bool:
    """Returns whether a path is on a disk or on gs://, whose writes can be conditional."""
    return not is_remote(path) or path.startswith("gs://")


def store_error(path: str, error: BaseException) -> str:
    """Returns the store's own message, from inside the errors that Beam wraps around it."""
    while details := getattr(error, "exception_details", None):
        error = next(iter(details.values()))
    if getattr(error, "code", None) == 404:
        # A listing raises this only for a bucket; a missing object is no error.
        return f"there is no {'/'.join(path.split('/')[:3])}"
    return str(error).rstrip(".")
