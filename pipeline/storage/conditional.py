"""Replaces a small file only if it is still what was read: on gs:// by its generation, on a disk under a lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from dataclasses import dataclass
from typing import Any

from pipeline.manifest import DotbiasError
from pipeline.storage.paths import is_remote


@dataclass(frozen=True)
class Versioned:
    """Holds the content of a file, None if there is no file, and its generation on a store (0 without a file)."""

    data: bytes | None
    generation: int | None = None


def read_versioned(path: str) -> Versioned:
    """Reads a file for `write_if_unchanged`.

    Raises:
        DotbiasError: the path is on a store other than gs://, or cannot be read.
    """
    if is_remote(path):
        from google.api_core.exceptions import NotFound

        blob = _blob(path)
        try:
            data: bytes = blob.download_as_bytes()
        except NotFound:
            return Versioned(None, 0)
        return Versioned(data, blob.generation)
    try:
        with open(path, "rb") as file:
            return Versioned(file.read())
    except FileNotFoundError:
        return Versioned(None)
    except OSError as error:
        raise DotbiasError(f"{path} cannot be read: {error.strerror or error}.") from error


def write_if_unchanged(path: str, seen: Versioned, data: bytes) -> bool:
    """Replaces the file in one step if it is still as it was `seen`; returns whether it was.

    A reader finds the old content or the new, never a part.

    Raises:
        DotbiasError: the path is on a store other than gs://, or cannot be written.
    """
    if is_remote(path):
        from google.api_core.exceptions import PreconditionFailed

        try:
            _blob(path).upload_from_string(data, if_generation_match=seen.generation or 0)
        except PreconditionFailed:
            # The client repeats a request that got no answer, so the newer content may be its own.
            return read_versioned(path).data == data
        return True
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        # A file of its own, since a lock on the file itself would be lost with the rename.
        with open(f"{path}.lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if read_versioned(path).data != seen.data:
                return False
            partial = f"{path}.{uuid.uuid4().hex}.partial"
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
    except OSError as error:
        raise DotbiasError(f"{path} cannot be written: {error.strerror or error}.") from error
    return True


def delete_if_unchanged(path: str, seen: Versioned) -> None:
    """Deletes an object on gs:// if it is still as it was `seen`."""
    from google.api_core.exceptions import NotFound, PreconditionFailed

    with contextlib.suppress(NotFound, PreconditionFailed):
        _blob(path).delete(if_generation_match=seen.generation)


def _blob(path: str) -> Any:
    """Returns the client's handle of an object; Beam's own settings give the credentials and the endpoint."""
    if not path.startswith("gs://"):
        raise DotbiasError(f"{path} is on a store that has no conditional write here; use gs:// or a local directory.")
    from apache_beam.io.gcp.gcsio import GcsIO, parse_gcs_path

    bucket, name = parse_gcs_path(path)
    return GcsIO().client.bucket(bucket).blob(name)
