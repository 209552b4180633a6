"""Lists and copies directories on any file system that Beam knows."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping

from pipeline.manifest import DotbiasError, join
from pipeline.storage.files import delete_tree, write_file
from pipeline.storage.paths import is_remote, store_error


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
    if not is_remote(directory):
        return sorted(join(parent, name) for parent, _, names in os.walk(directory) for name in names)
    from apache_beam.io.filesystem import BeamIOError
    from apache_beam.io.filesystems import FileSystems

    try:
        found = FileSystems.match([directory.rstrip("/") + "/**"])[0].metadata_list
    except BeamIOError as error:
        raise DotbiasError(f"{directory} cannot be listed: {store_error(directory, error)}.") from error
    return sorted(metadata.path for metadata in found)


def copy_tree(source: str, target: str, last: str, more: Mapping[str, bytes]) -> None:
    """Copies a directory; what stands at `target` is replaced.

    On a disk the copy is made aside and renamed, so `target` is whole or not there. A store has no such rename: there
    the file `last`, relative to the directory, is written after all others, so that what has it is whole. `more` adds
    files, by their relative paths.

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
        for name, data in more.items():
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
        for name, data in more.items():
            write_file(join(aside, name), data, temporary=aside)
        delete_tree(target)
        os.rename(aside, target)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise DotbiasError(f"{target} cannot be written: {error.strerror or error}.") from error
