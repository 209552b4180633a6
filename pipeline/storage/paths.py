"""Local paths and URLs of a store, and the errors that name them."""

from __future__ import annotations

from pipeline.manifest import DotbiasError


class InputError(DotbiasError):
    """The input that was named is not there, or cannot be read."""


def is_remote(path: str) -> bool:
    return "://" in path


def store_error(path: str, error: BaseException) -> str:
    """What the store itself says, out of the errors that Beam wraps into each other."""
    while details := getattr(error, "exception_details", None):
        error = next(iter(details.values()))
    if getattr(error, "code", None) == 404:
        # Of a listing: an object that is missing is no error there.
        return f"there is no {'/'.join(path.split('/')[:3])}"
    return str(error).rstrip(".")
