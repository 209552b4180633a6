"""Opens files on any file system that TensorFlow knows; TensorFlow is imported for remote paths only.

A start that finds all its work done reads a few small files, and should not take seconds for an import.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from typing import IO, Any


def is_remote(path: str) -> bool:
    """Return whether a path is a URL."""
    return "://" in path


def open_file(path: str, mode: str = "r") -> IO[Any]:
    if is_remote(path):
        import tensorflow as tf

        remote: IO[Any] = tf.io.gfile.GFile(path, mode)
        return remote
    return open(path, mode, encoding=None if "b" in mode else "utf-8")


def read_bytes(path: str) -> bytes:
    with open_file(path, "rb") as file:
        return bytes(file.read())


def exists(path: str) -> bool:
    """Return whether there is a file or a directory."""
    if is_remote(path):
        import tensorflow as tf

        return bool(tf.io.gfile.exists(path))
    return os.path.exists(path)


def write_text(path: str, text: str) -> None:
    """Replace a file in one rename: a reader sees the old text or the new one."""
    with open_file(path + ".tmp", "w") as file:
        file.write(text)
    if is_remote(path):
        import tensorflow as tf

        tf.io.gfile.rename(path + ".tmp", path, overwrite=True)
    else:
        os.replace(path + ".tmp", path)


def delete_tree(directory: str) -> None:
    """Delete a directory and all in it, if it is there; raise `OSError` if that fails."""
    if not exists(directory):
        return
    if not is_remote(directory):
        shutil.rmtree(directory)
        return
    import tensorflow as tf

    try:
        tf.io.gfile.rmtree(directory)
    except tf.errors.OpError as error:
        raise OSError(str(error)) from error


def walk(directory: str) -> Iterable[tuple[str, list[str], list[str]]]:
    """Yield path, directories and files of a directory and of all below it, as `os.walk` does."""
    if is_remote(directory):
        import tensorflow as tf

        remote: Iterable[tuple[str, list[str], list[str]]] = tf.io.gfile.walk(directory)
        return remote
    return os.walk(directory)
