"""Manages the attempts at a dataset: each writes into a directory of its own, and one of them is published."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from pipeline.manifest import MANIFEST_NAME, DatasetManifest, DotbiasError, join
from pipeline.storage.files import delete_tree, write_file
from pipeline.storage.paths import can_be_locked, is_remote
from pipeline.storage.trees import delete_files, file_sizes, list_directories, move_files

_LOGGER = logging.getLogger(__name__)

# Directory of the attempts inside the dataset; deleted after the manifest is written.
ATTEMPTS_DIRECTORY = ".tmp"
# An attempt on a service goes on without the launcher, so it is deleted only when the dataset is complete.
_ON_A_SERVICE, _IN_PROCESS = "job-", "local-"


class WrittenFile(NamedTuple):
    """Names a file of an attempt, relative to it, and its size."""

    name: str
    bytes: int


def new_attempt(dataset: str, on_a_service: bool) -> str:
    """Returns the path of a directory that no other attempt has."""
    prefix = _ON_A_SERVICE if on_a_service else _IN_PROCESS
    return join(dataset, ATTEMPTS_DIRECTORY, prefix + uuid.uuid4().hex[:12])


def temporary_directory(attempt: str) -> str:
    """Returns the directory for files that only the job needs: unfinished files, TFT's files, vocabulary sizes."""
    return join(attempt, "tmp")


def publication_lock(dataset: str) -> str:
    """Returns the path of the lock that an attempt holds while it is published."""
    return join(dataset, ATTEMPTS_DIRECTORY, "publication.lock")


def continued_attempt(dataset: str, identity: str) -> str:
    """Returns the path of the directory in which an attempt in this process goes on after a kill.

    Only for work whose finished files stay right whatever becomes of the attempt; call it under the lock.
    """
    return join(dataset, ATTEMPTS_DIRECTORY, _IN_PROCESS + identity[:12])


def delete_ended_attempts(dataset: str, but: str | None = None) -> None:
    """Deletes the attempts of processes that have ended, but one; call it under the lock of the dataset.

    Attempts on a service stay: their job may still run. So do all attempts on a store that cannot be locked.
    """
    if not can_be_locked(dataset):
        return
    directory = join(dataset, ATTEMPTS_DIRECTORY)
    names = list_directories(directory)
    stay = [name for name in names if name.startswith(_ON_A_SERVICE) or join(directory, name) == but]
    if stay:
        for name in names:
            if name not in stay:
                delete_tree(join(directory, name))
    else:
        delete_tree(directory)


def delete_leftovers(directory: str) -> None:
    """Deletes what is no longer needed beside a complete dataset; a failure is a warning."""
    try:
        delete_tree(directory)
    except DotbiasError as error:
        _LOGGER.warning("the dataset is complete, but leftovers remain: %s", error)
    if not is_remote(directory):
        # Deletes the directory of the attempts too, if this was the last one.
        with suppress(OSError):
            os.rmdir(os.path.dirname(directory))


def publish(attempt: str, dataset: str, manifest: DatasetManifest, others: Iterable[WrittenFile]) -> None:
    """Moves the files of an attempt to their places, compares names and sizes, and writes the manifest.

    A retry after an interruption goes on with the files that are left. Call it under `publication_lock`.

    Args:
        attempt: directory of the attempt.
        dataset: directory of the dataset.
        manifest: describes the shards and vocabularies.
        others: the files that the manifest does not name.

    Raises:
        DotbiasError: a file is missing or has another size. No manifest is written then.
    """
    expected: dict[str, int | None] = {file.name: file.bytes for file in others}
    for split in manifest.splits.values():
        expected |= {shard.path: shard.bytes for shard in split.shards}
    for feature in manifest.features.values():
        expected |= {path: None for path in (feature.vocabulary_path, feature.counts_path) if path is not None}
    move_files(sorted(expected), attempt, dataset)
    found = {name: size for name, size in file_sizes(dataset).items() if not name.startswith(f"{ATTEMPTS_DIRECTORY}/")}
    for name, size in sorted(expected.items()):
        if name not in found or size not in (None, found[name]):
            state = f"has {found[name]:,} bytes instead of {size:,}" if name in found else "is missing"
            raise DotbiasError(
                f"{join(dataset, name)} {state}, although this job has written it: something else deletes or replaces "
                "files there. No manifest is written. Find out what it is, and rerun."
            )
    # An attempt that was interrupted here may have had other shards.
    delete_files(sorted(found.keys() - expected.keys()), dataset)
    write_file(join(dataset, MANIFEST_NAME), manifest.to_json().encode(), temporary_directory(attempt))
