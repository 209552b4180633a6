"""Shows how many users of a job have their lists, by the files that its workers write, in whichever process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dotbias.recommending.job import Job
from pipeline.manifest import Progress
from pipeline.storage.paths import is_remote
from pipeline.storage.trees import file_sizes

# Seconds between two looks; a store is asked over the network.
_INTERVAL, _INTERVAL_OF_A_STORE = 0.5, 10.0


@contextmanager
def watched(job: Job, progress: Progress) -> Iterator[None]:
    """Report the users that are done while the block runs, as the stage "recommend"."""
    done = threading.Event()
    parts = 0

    def show() -> None:
        nonlocal parts
        # The last step of the job deletes them.
        parts = max(parts, len(file_sizes(job.finished)))
        progress("recommend", min(parts * job.block, job.users.size), job.users.size, {})

    def watch() -> None:
        while not done.wait(_INTERVAL_OF_A_STORE if is_remote(job.finished) else _INTERVAL):
            show()

    watcher = threading.Thread(target=watch, daemon=True)
    show()
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    progress("recommend", job.users.size, job.users.size, {})
