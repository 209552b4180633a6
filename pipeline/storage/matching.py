"""Finds the files that a pattern names. Beam is imported for remote patterns only, so a local mistake shows at once."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterable, Iterator

from pipeline.manifest import InputFile
from pipeline.storage.paths import InputError, is_remote, store_error


def match_input(patterns: Iterable[str]) -> list[InputFile]:
    """Lists the files that the patterns name, each once, sorted by path.

    Raises:
        InputError: there is no pattern, a pattern matches nothing, or it names something that is not a readable file.
    """
    patterns = tuple(patterns)
    if not patterns:
        raise InputError("no input: name files with `--input 'ratings*.csv'` or `pipeline.input.patterns`.")
    files: dict[str, InputFile] = {}
    for file in sorted((file for pattern in patterns for file in _match(pattern)), key=lambda file: file.path):
        files.setdefault(identity(file.path), file)
    return list(files.values())


def check_unchanged(files: Iterable[InputFile], *, may_grow: bool = False) -> None:
    """Raises `InputError` if a file has another size or time of modification than when it was listed.

    With `may_grow`, a larger size is no error.
    """
    files = list(files)
    remote = [file for file in files if is_remote(file.path)]
    # One request lists a thousand objects; asking for each by itself takes a request.
    listed = {file.path: file for file in _list_together(remote)} if len(remote) > 1 else {}
    for file in files:
        now = listed.get(file.path) or match_input([file.path])[0]
        if not (is_unchanged(file, now) or (may_grow and has_grown(file, now))):
            raise InputError(
                f"{file.path} has changed since the job began. Rerun when it is complete. A file that still grows has "
                "to be left out of --input, or all of its rows have to be outside of `pipeline.window`."
            )


def is_unchanged(before: InputFile, now: InputFile) -> bool:
    """Returns whether a file is as it was listed."""
    return (before.path, before.bytes, before.modified) == (now.path, now.bytes, now.modified)


def has_grown(before: InputFile, now: InputFile) -> bool:
    """Returns whether a file is larger than it was listed."""
    return before.path == now.path and before.bytes < now.bytes


def _list_together(files: Iterable[InputFile]) -> Iterator[InputFile]:
    """Lists the directories of remote files; those whose names have a wildcard are left out."""
    for directory in sorted({file.path.rpartition("/")[0] for file in files}):
        if not set(directory) & set("*?["):
            yield from _match_remote(f"{directory}/*")


def identity(path: str) -> str:
    """Returns the same name for all paths of a file: "log.csv", "./log.csv", a link."""
    return path if is_remote(path) else os.path.realpath(path)


def _match(pattern: str) -> list[InputFile]:
    files = list(_match_remote(pattern) if is_remote(pattern) else _match_local(pattern))
    if not files:
        raise InputError(
            f"input {pattern!r} matches no file (looked in {os.getcwd()})."
            if not is_remote(pattern)
            else f"input {pattern!r} matches no file."
        )
    return files


def _match_local(pattern: str) -> Iterator[InputFile]:
    # A name that exists is taken literally, even with a "[" in it.
    for path in [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True):
        if os.path.isdir(path):
            raise InputError(f"input {path!r} is a directory; name its files: {os.path.join(path, '*')!r}.")
        try:
            status = os.stat(path)
            if not os.access(path, os.R_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise InputError(f"input {path!r} cannot be read: {error.strerror}.") from None
        yield InputFile(path=path, bytes=status.st_size, modified=status.st_mtime)


def _match_remote(pattern: str) -> Iterator[InputFile]:
    from apache_beam.io.filesystems import FileSystems

    try:
        # A name that exists is taken literally, as on a disk.
        if set(pattern) & set("*?[") and FileSystems.exists(pattern):
            found = [FileSystems.get_filesystem(pattern).metadata(pattern)]
        else:
            found = FileSystems.match([pattern])[0].metadata_list
    except Exception as error:
        # Each file system has its own exceptions for a missing bucket, permission or package.
        raise InputError(f"input {pattern!r} cannot be listed: {store_error(pattern, error)}.") from error
    for metadata in found:
        yield InputFile(path=metadata.path, bytes=metadata.size_in_bytes, modified=metadata.last_updated_in_seconds)
