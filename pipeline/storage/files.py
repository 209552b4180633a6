"""Reads, writes and deletes files on any file system that Beam knows; a file appears only when it is complete.

Beam is imported for remote paths only.
"""

from __future__ import annotations

import io
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from pipeline.manifest import DotbiasError, join
from pipeline.storage.paths import InputError, is_remote, store_error

# Bytes that a request to gs:// fetches at least, for the first lines of a file. To send them takes a small part of the
# time of a request.
BEGINNING = 64 << 10
# For a file that is read from its beginning to its end in small pieces.
STREAM = 16 << 20
# For a reader that asks for whole pieces: nothing else is fetched.
EXACT = 1


def open_file(path: str, fetch_bytes: int = BEGINNING) -> BinaryIO:
    """Opens a file for reading, without decompressing it by its name.

    Args:
        path: the file.
        fetch_bytes: bytes that a request to gs:// fetches at least, and that are kept in memory. Beam by itself fetches
            16 MiB: twice a range of a CSV file, and most of a row group of Parquet for one column.
    """
    if not is_remote(path):
        return open(path, "rb")
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    if not path.startswith("gs://"):
        return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    # Beam's own client, with its credentials and retries; its public functions have no such option.
    client = FileSystems.get_filesystem(path)._gcsIO()
    # The client drops what it has fetched when it goes back, so a buffer stands before it.
    return io.BufferedReader(client.open(path, "rb", read_buffer_size=EXACT), fetch_bytes)


def read_file(path: str) -> bytes:
    """Reads a whole file."""
    with open_file(path) as file:
        return bytes(file.read())


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Turns an error in reading a file into an `InputError` that names the file."""
    # Imported here, since a machine that only trains has no isal, and writes files all the same.
    from isal import isal_zlib

    try:
        yield
    except (EOFError, OSError, ValueError, isal_zlib.error) as error:  # type: ignore[misc]  # The stub of isal takes `error` for an instance.
        raise InputError(
            f"{path} cannot be read to its end: {str(error) or type(error).__name__}. "
            "Replace the file or leave it out, and rerun."
        ) from error


def write_file(path: str, data: bytes, temporary: str | None = None) -> None:
    """Writes a whole file, as `write_chunks` does."""
    write_chunks(path, [data], temporary)


def write_chunks(path: str, chunks: Iterable[bytes], temporary: str | None = None) -> None:
    """Writes the chunks as one file; a retry replaces it.

    An object of a store appears when its upload is complete. A local file is written in the directory `temporary`, on
    the same disk (None: beside it), and renamed.

    Raises:
        DotbiasError: the disk refuses.
    """
    if is_remote(path):
        from apache_beam.io.filesystem import CompressionTypes
        from apache_beam.io.filesystems import FileSystems

        with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.writelines(chunks)
        return
    directory = os.path.dirname(path) or "."
    temporary = directory if temporary is None else temporary
    partial = join(temporary, f"{uuid.uuid4().hex}.partial")
    try:
        os.makedirs(temporary, exist_ok=True)
        os.makedirs(directory, exist_ok=True)
        with open(partial, "wb") as file:
            file.writelines(chunks)
        os.replace(partial, path)
    except OSError as error:
        raise DotbiasError(f"{path} cannot be written: {error.strerror or error}. Fix this and rerun.") from error


def delete_tree(directory: str) -> None:
    """Deletes a directory and all in it; nothing happens if there is none.

    Raises:
        DotbiasError: something else stands there, or it cannot be deleted.
    """
    if is_remote(directory):
        from apache_beam.io.filesystem import BeamIOError
        from apache_beam.io.filesystems import FileSystems

        try:
            if FileSystems.match([join(directory, "**")])[0].metadata_list:
                FileSystems.delete([directory.rstrip("/") + "/"])
                # Beam only logs the objects that it cannot delete.
                left = FileSystems.match([join(directory, "**")])[0].metadata_list
                if left:
                    raise DotbiasError(
                        f"{directory} cannot be deleted: {len(left):,} objects are left, such as {left[0].path}. "
                        "Check that you may delete objects there, and rerun."
                    )
        except BeamIOError as error:
            raise DotbiasError(f"{directory} cannot be deleted: {store_error(directory, error)}.") from error
    elif os.path.lexists(directory):
        try:
            shutil.rmtree(directory)
        except OSError as error:
            raise DotbiasError(f"{directory} cannot be deleted: {error.strerror or error}.") from None
