"""Reads and replaces `champion.json`, which names the run that serves.

It is replaced by one conditional write, so that of two nights at the same time only one becomes champion.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.manifest import DotbiasError, join
from pipeline.storage.conditional import Versioned, read_versioned, write_if_unchanged
from pipeline.storage.lock import LockedError, lock

CHAMPION_NAME = "champion.json"
# Written in `champion.json` where no decision of a run made the champion.
ROLLBACK = "rollback"
_LOCK_NAME = "serving.lock"
# Copying an export takes seconds.
_TRIES, _SECONDS_BETWEEN = 60, 1.0


class Champion(BaseModel):
    """Describes the run that serves.

    `version` is the directory under `serving/`. `decided_by` is the path, relative to the root, of the `decision.json`
    that promoted it, or "rollback". `previous` is the predecessor, without its own `previous`. While `pinned`, no run
    takes its place.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    run_id: str
    version: int
    decided_by: str
    pinned: bool = False
    previous: Champion | None = None

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"


class Throne:
    """Reads and replaces the champion of an output root.

    Args:
        root: the output root, local or gs://.
    """

    def __init__(self, root: str) -> None:
        self.path = join(root, CHAMPION_NAME)

    def read(self) -> tuple[Champion | None, Versioned]:
        """Returns the champion, None if there is none yet, and what `replace` compares with.

        Raises:
            DotbiasError: the file is there and cannot be read as a champion.
        """
        found = read_versioned(self.path)
        if found.data is None:
            return None, found
        try:
            return Champion.model_validate_json(found.data), found
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise DotbiasError(
                f"{self.path}: `{where}`: {first['msg']}. Restore the file, or delete it to start without a champion."
            ) from None

    def replace(self, seen: Versioned, champion: Champion) -> bool:
        """Writes `champion` if the file is still as it was `seen`; returns whether it was."""
        return write_if_unchanged(self.path, seen, champion.to_json().encode())


@contextmanager
def locked_serving(root: str) -> Iterator[None]:
    """Keeps other commands from changing the champion or `serving/` while the block runs; waits for them first.

    Raises:
        DotbiasError: another command has not ended within a minute.
    """
    with ExitStack() as held:
        for left in reversed(range(_TRIES)):
            try:
                held.enter_context(lock(join(root, _LOCK_NAME), f"what serves in {root}"))
                break
            except LockedError:
                if not left:
                    raise
            time.sleep(_SECONDS_BETWEEN)
        yield


def successor(current: Champion | None, run_id: str, version: int, decided_by: str) -> Champion:
    """Returns the champion that follows `current`; a predecessor's own predecessor is dropped."""
    previous = None if current is None else current.model_copy(update={"previous": None, "pinned": False})
    return Champion(run_id=run_id, version=version, decided_by=decided_by, previous=previous)
