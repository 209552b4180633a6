"""Changes the model that serves: publishes an export for TensorFlow Serving, rolls back, pins."""

from __future__ import annotations

from datetime import date

from dotbias.retraining.champion import Champion, Throne
from dotbias.retraining.decision import Decision
from dotbias.retraining.runs import RunPaths, dated_runs
from pipeline.manifest import DotbiasError, join
from pipeline.storage.files import read_file
from pipeline.storage.trees import copy_tree, exists, list_directories

SERVING_DIRECTORY = "serving"
# TensorFlow Serving loads a version once this file is there, so it is written last.
_SAVED_MODEL = "saved_model.pb"
# A rollback publishes a former model again under a higher number, since TensorFlow Serving takes the highest.
_VERSIONS_A_DAY = 100
# The value of `decided_by` in `champion.json` after a rollback.
ROLLBACK = "rollback"


def version_of(day: date) -> int:
    """Returns the first version of a date; versions rise with the date.

    >>> version_of(date(2026, 11, 24))
    2026112400
    """
    return int(day.strftime("%Y%m%d")) * _VERSIONS_A_DAY


def version_after(champion: Champion) -> int:
    """Returns the version under which a former model is published again.

    Raises:
        DotbiasError: the date of the champion has no number left.
    """
    version = champion.version + 1
    if version % _VERSIONS_A_DAY == 0:
        raise DotbiasError(
            f"Version {champion.version} is the last one of its date, which allows {_VERSIONS_A_DAY - 1} rollbacks. "
            "Retrain another date."
        )
    return version


def publish(root: str, export: str, version: int) -> str:
    """Copies an export to `serving/<version>/`; returns its path.

    Nothing happens if it is there already and complete.

    Args:
        root: the output root.
        export: a SavedModel.
        version: a directory name that TensorFlow Serving takes for a version.
    """
    target = join(root, SERVING_DIRECTORY, str(version))
    if not exists(join(target, _SAVED_MODEL)):
        copy_tree(export, target, last=_SAVED_MODEL)
    return target


def published_versions(root: str) -> list[int]:
    """Returns the versions in `serving/`, the lowest first."""
    return sorted(int(name) for name in list_directories(join(root, SERVING_DIRECTORY)) if name.isdecimal())


def roll_back(root: str, run_id: str | None) -> Champion:
    """Publishes a former champion again, under a version above the current one, and makes it the champion.

    Args:
        root: the output root.
        run_id: a run that was champion; None for the predecessor of the current one.

    Raises:
        DotbiasError: there is no such run, it never was champion, its model is gone, or the champion changed meanwhile.
    """
    throne = Throne(root)
    champion, seen = throne.read()
    if champion is None:
        raise DotbiasError(f"{throne.path} does not exist, so there is no champion to roll back.")
    if run_id is None:
        if champion.previous is None:
            raise DotbiasError(f"The champion {champion.run_id} has no predecessor. Name a run with --to.")
        run_id = champion.previous.run_id
    if run_id == champion.run_id:
        raise DotbiasError(f"{run_id} is the champion already.")
    paths = RunPaths(root, run_id)
    if not _was_champion(paths):
        former = [name for name in dated_runs(root) if _was_champion(RunPaths(root, name))]
        raise DotbiasError(f"{run_id} never was champion. Former champions: {', '.join(former) or 'none'}.")
    export = join(paths.model, "export")
    version = version_after(champion)
    publish(root, export, version)
    previous = champion.model_copy(update={"previous": None, "pinned": False})
    back = Champion(run_id=run_id, version=version, decided_by=ROLLBACK, pinned=champion.pinned, previous=previous)
    if not throne.replace(seen, back):
        raise DotbiasError("Another command changed the champion at the same time. Look at it, then try again.")
    return back


def pin(root: str, pinned: bool) -> Champion:
    """Pins the champion, so that no run takes its place, or releases it.

    Raises:
        DotbiasError: there is no champion, or it changed meanwhile.
    """
    throne = Throne(root)
    champion, seen = throne.read()
    if champion is None:
        raise DotbiasError(f"{throne.path} does not exist, so there is no champion to pin.")
    changed = champion.model_copy(update={"pinned": pinned})
    if not throne.replace(seen, changed):
        raise DotbiasError("Another command changed the champion at the same time. Look at it, then try again.")
    return changed


def _was_champion(paths: RunPaths) -> bool:
    return (
        exists(paths.decision) and Decision.from_json(read_file(paths.decision), paths.decision).outcome == "promoted"
    )
