"""Changes the model that serves: publishes an export for TensorFlow Serving, rolls back, pins."""

from __future__ import annotations

import hashlib
import json
from datetime import date

from dotbias.retraining.champion import ROLLBACK, Champion, Throne, locked_serving
from dotbias.retraining.decision import Decision
from dotbias.retraining.runs import SERVING_DIRECTORY, RunPaths, dated_runs
from pipeline.manifest import DotbiasError, join
from pipeline.storage.conditional import Versioned
from pipeline.storage.files import read_file
from pipeline.storage.trees import copy_tree, exists, file_sizes
from trainer.output.result import EXPORT_DIRECTORY

# TensorFlow Serving loads a version once this file is there, so it is written last.
_SAVED_MODEL = "saved_model.pb"
# Says which run and which export a version was made of.
_ORIGIN = "assets.extra/dotbias.json"
# It has a checksum of each weight.
_WEIGHTS_INDEX = "variables/variables.index"
# A rollback publishes a former model again under a higher number, since TensorFlow Serving takes the highest.
_VERSIONS_A_DAY = 100


def version_of(day: date) -> int:
    """Returns the first version of a date; versions rise with the date.

    >>> version_of(date(2026, 11, 24))
    2026112400
    """
    return int(day.strftime("%Y%m%d")) * _VERSIONS_A_DAY


def next_version(day: date, champion: Champion | None) -> int:
    """Returns the version of a run of a date: that of the date, or one above what serves.

    After a rollback, the version that serves may be of a later date than the champion.
    """
    version = version_of(day)
    return version if champion is None or champion.version < version else version_after(champion)


def version_after(champion: Champion) -> int:
    """Returns the version that follows that of the champion.

    Raises:
        DotbiasError: the date of the champion has no number left.
    """
    version = champion.version + 1
    if version % _VERSIONS_A_DAY == 0:
        raise DotbiasError(
            f"Version {champion.version} is the last one of its date, which allows {_VERSIONS_A_DAY - 1} changes. "
            "Retrain a later date."
        )
    return version


def publish(root: str, run_id: str, version: int) -> str:
    """Copies the export of a run to `serving/<version>/`; returns its path.

    Nothing happens if it is there already, complete and of this export. What a command that was killed left of another
    export is replaced.

    Args:
        root: the output root; the caller holds `locked_serving`.
        run_id: the run.
        version: a directory name that TensorFlow Serving takes for a version.
    """
    export = join(RunPaths(root, run_id).model, EXPORT_DIRECTORY)
    target = join(root, SERVING_DIRECTORY, str(version))
    origin = {"run_id": run_id, "export": _digest(export)}
    if not exists(join(target, _SAVED_MODEL)) or read_origin(root, version) != origin:
        copy_tree(export, target, last=_SAVED_MODEL, more={_ORIGIN: (json.dumps(origin) + "\n").encode()})
    return target


def read_origin(root: str, version: int) -> dict[str, str] | None:
    """Returns the `run_id` and the digest of the `export` that a version was made of; None if it does not say."""
    path = join(root, SERVING_DIRECTORY, str(version), _ORIGIN)
    if not exists(path):
        return None
    origin: dict[str, str] = json.loads(read_file(path))
    return origin


def _digest(export: str) -> str:
    """Returns a digest of an export, without reading its weights.

    Raises:
        DotbiasError: it is not there, or not complete.
    """
    sizes = file_sizes(export)
    if _SAVED_MODEL not in sizes:
        raise DotbiasError(f"{export} has no {_SAVED_MODEL}, so it is not complete and cannot be published.")
    digest = hashlib.sha256(json.dumps(sorted(sizes.items())).encode())
    for name in (_SAVED_MODEL, _WEIGHTS_INDEX):
        if name in sizes:
            digest.update(read_file(join(export, name)))
    return digest.hexdigest()


def roll_back(root: str, run_id: str | None) -> Champion:
    """Publishes a former champion again, under a version above the current one, and makes it the champion.

    Args:
        root: the output root.
        run_id: a run that was champion; None for the predecessor of the current one.

    Raises:
        DotbiasError: there is no such run, it never was champion, its model is gone, or the champion changed meanwhile.
    """
    throne = Throne(root)
    with locked_serving(root):
        champion, seen = throne.read()
        if champion is None:
            raise DotbiasError(f"{throne.path} does not exist, so there is no champion to roll back.")
        run_id = _to_put_back(root, champion, run_id)
        version = version_after(champion)
        publish(root, run_id, version)
        previous = champion.model_copy(update={"previous": None, "pinned": False})
        back = Champion(run_id=run_id, version=version, decided_by=ROLLBACK, pinned=champion.pinned, previous=previous)
        _replace(throne, seen, back)
    return back


def _to_put_back(root: str, champion: Champion, run_id: str | None) -> str:
    if run_id is None:
        if champion.previous is None:
            raise DotbiasError(f"The champion {champion.run_id} has no predecessor. Name a run with --run_id.")
        run_id = champion.previous.run_id
    if run_id == champion.run_id:
        raise DotbiasError(f"{run_id} is the champion already.")
    if not _was_champion(RunPaths(root, run_id)):
        former = [name for name in dated_runs(root) if _was_champion(RunPaths(root, name))]
        raise DotbiasError(f"{run_id} never was champion. Former champions: {', '.join(former) or 'none'}.")
    return run_id


def pin(root: str, pinned: bool) -> Champion:
    """Pins the champion, so that no run takes its place, or releases it.

    Raises:
        DotbiasError: there is no champion, or it changed meanwhile.
    """
    throne = Throne(root)
    with locked_serving(root):
        champion, seen = throne.read()
        if champion is None:
            raise DotbiasError(f"{throne.path} does not exist, so there is no champion to pin.")
        changed = champion.model_copy(update={"pinned": pinned})
        _replace(throne, seen, changed)
    return changed


def _replace(throne: Throne, seen: Versioned, champion: Champion) -> None:
    if not throne.replace(seen, champion):
        raise DotbiasError("Another command changed the champion at the same time. Look at it, then try again.")


def _was_champion(paths: RunPaths) -> bool:
    return (
        exists(paths.decision) and Decision.from_json(read_file(paths.decision), paths.decision).outcome == "promoted"
    )
