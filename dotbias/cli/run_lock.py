"""Locks the directory of a run while a stage writes to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from dotbias.cli.failures import UsageError
from pipeline.manifest import join
from pipeline.storage.lock import UnwritableError, lock
from pipeline.storage.paths import is_remote
from trainer.devices.cluster import worker_index

LOCK_NAME = "run.lock"


@contextmanager
def locked_run(run: str) -> Iterator[None]:
    """Locks the directory of a run while the block runs.

    Of several workers that train one model, the chief holds the lock for all.

    Raises:
        UsageError: the directory cannot be written.
        DotbiasError: another process writes to it.
    """
    with ExitStack() as held:
        if worker_index() == 0:
            if not is_remote(run):
                # A start that fails leaves no empty directory.
                held.callback(_delete_empty, run)
            try:
                held.enter_context(lock(join(run, LOCK_NAME), f"run {run}"))
            except UnwritableError as error:
                raise UsageError(f"--output_root: {error}") from None
        yield


def _delete_empty(directory: str) -> None:
    with suppress(OSError):
        os.rmdir(directory)
