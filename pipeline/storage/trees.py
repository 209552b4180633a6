"""Lists, copies and moves files and directories on any file system that Beam knows."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipeline.manifest import DotbiasError, join
from pipeline.storage.files import delete_tree, write_file
from pipeline.storage.paths import is_remote, store_error

# Copies on a store that run at the same time.
_COPIES = 16


def exists(path: str) -> bool:
    """Returns whether there is a file, or on a disk also a directory, of that name."""
    if not is_remote(path):
        return os.path.exists(path)
    from apache_beam.io.filesystems import FileSystems

    return bool(FileSystems.exists(path))


def list_directories(directory: str) -> list[str]:
    """Returns the names of the directories in `directory`, sorted; none if it is not there."""
    if not is_remote(directory):
        if not os.path.isdir(directory):
            return []
        return sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())
    prefix = directory.rstrip("/") + "/"
    below = (path.removeprefix(prefix) for path in list_files(directory))
    return sorted({name.split("/", 1)[0] for name in below if "/" in name})


def list_files(directory: str) -> list[str]:
    """Returns the paths of all files in and below `directory`, sorted; none if it is not there."""
    return sorted(join(directory, name) for name in file_sizes(directory))


def file_sizes(directory: str) -> dict[str, int]:
    """Returns the bytes of all files in and below `directory`, by path relative to it; none if it is not there."""
    return {name: size for name, (size, _) in _sizes_and_times(directory).items()}


def file_times(directory: str) -> dict[str, float]:
    """Returns when files were written, in seconds since the epoch, like `file_sizes`."""
    return {name: modified for name, (_, modified) in _sizes_and_times(directory).items()}


def _sizes_and_times(directory: str) -> dict[str, tuple[int, float]]:
    prefix = directory.rstrip("/") + "/"
    if not is_remote(directory):
        paths = [join(parent, name) for parent, _, names in os.walk(directory) for name in names]
        found = {path: os.stat(path) for path in paths}
        return {path.removeprefix(prefix): (status.st_size, status.st_mtime) for path, status in found.items()}
    from apache_beam.io.filesystem import BeamIOError
    from apache_beam.io.filesystems import FileSystems

    try:
        listed = FileSystems.match([prefix + "**"])[0].metadata_list
    except BeamIOError as error:
        raise DotbiasError(f"{directory} cannot be listed: {store_error(directory, error)}.") from error
    # TensorFlow marks a directory by an empty object of its name.
    files = [metadata for metadata in listed if not metadata.path.endswith("/")]
    return {file.path.removeprefix(prefix): (file.size_in_bytes, file.last_updated_in_seconds) for file in files}


def copy_file(source: str, target: str) -> None:
    """Copies a file within one file system, and replaces one that is there."""
    if is_remote(target):
        from apache_beam.io.filesystems import FileSystems

        FileSystems.copy([source], [target])
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(source, target)


def move_files(names: Sequence[str], source: str, target: str) -> None:
    """Moves files, by path relative to both directories, and replaces existing ones.

    May be repeated after an interruption: on a disk, files that were moved already are skipped. A store cannot rename,
    so there all files are copied, and the caller deletes the source.

    Raises:
        DotbiasError: a file cannot be written.
    """

    def move(name: str) -> None:
        if os.path.lexists(join(source, name)):
            os.makedirs(os.path.dirname(join(target, name)), exist_ok=True)
            os.replace(join(source, name), join(target, name))

    def copy(name: str) -> None:
        copy_file(join(source, name), join(target, name))

    try:
        if not is_remote(target):
            for name in names:
                move(name)
            return
        with ThreadPoolExecutor(_COPIES) as pool:
            for _ in pool.map(copy, names):
                pass
    except Exception as error:
        # Each file system has its own exceptions.
        raise DotbiasError(f"{target} cannot be written: {store_error(target, error)}.") from error


def delete_files(names: Sequence[str], directory: str) -> None:
    """Deletes files, by path relative to the directory; on a disk also their directories, if they are empty then.

    Raises:
        DotbiasError: a file cannot be deleted.
    """
    try:
        if not is_remote(directory):
            for name in names:
                os.remove(join(directory, name))
            for parent in {os.path.dirname(join(directory, name)) for name in names}:
                with contextlib.suppress(OSError):
                    os.rmdir(parent)
        elif names:
            from apache_beam.io.filesystems import FileSystems

            FileSystems.delete([join(directory, name) for name in names])
    except Exception as error:
        raise DotbiasError(f"{directory} cannot be cleared: {store_error(directory, error)}.") from error


def copy_tree(source: str, target: str, last: str, more: Mapping[str, bytes] | None = None) -> None:
    """Copies a directory and replaces what is at `target`; `more` are further files, by their relative paths.

    On a disk the copy is made beside `target` and renamed, so `target` is whole or missing. A store cannot rename:
    there the file `last`, relative to the directory, is written after all others, so a directory that has it is whole.

    Raises:
        DotbiasError: the source has no file `last`, or a file cannot be copied.
    """
    files = list_files(source)
    prefix = source.rstrip("/") + "/"
    names = [path.removeprefix(prefix) for path in files]
    if last not in names:
        raise DotbiasError(f"{source} has no {last}, so it is not complete and cannot be copied.")
    names.sort(key=lambda name: name == last)
    if is_remote(target):
        from apache_beam.io.filesystem import BeamIOError
        from apache_beam.io.filesystems import FileSystems

        delete_tree(target)
        for name, data in (more or {}).items():
            write_file(join(target, name), data, temporary=target)
        try:
            for name in names:
                FileSystems.copy([join(source, name)], [join(target, name)])
        except BeamIOError as error:
            raise DotbiasError(f"{target} cannot be written: {store_error(target, error)}.") from error
        return
    aside = f"{target.rstrip('/')}.{uuid.uuid4().hex}.partial"
    try:
        for name in names:
            os.makedirs(os.path.dirname(join(aside, name)), exist_ok=True)
            shutil.copyfile(join(source, name), join(aside, name))
        for name, data in (more or {}).items():
            write_file(join(aside, name), data, temporary=aside)
        delete_tree(target)
        os.rename(aside, target)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise DotbiasError(f"{target} cannot be written: {error.strerror or error}.") from error
