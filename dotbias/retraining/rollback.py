"""Puts a former champion back, and pins or releases the one that serves."""

from __future__ import annotations

from dotbias.retraining.champion import Champion, Throne
from dotbias.retraining.decision import Decision
from dotbias.retraining.publish import publish, version_after
from dotbias.retraining.runs import RunPaths, dated_runs
from pipeline.manifest import DotbiasError, join, read_manifest
from pipeline.storage.files import open_file, read_file
from pipeline.storage.trees import exists

# Written in `champion.json` where no decision of a run made the champion.
ROLLBACK = "rollback"


def roll_back(root: str, run_id: str | None) -> Champion:
    """Publishes a former champion again, under a version above the present one, and makes it the champion.

    Args:
        root: the output root.
        run_id: a run that was champion; None for the predecessor of the present one.

    Raises:
        DotbiasError: there is no such run, it never was champion, its model is gone, or the champion changed meanwhile.
    """
    throne = Throne(root)
    champion, seen = throne.read()
    if champion is None:
        raise DotbiasError(f"{throne.path} does not exist, so there is no champion to roll back.")
    if run_id is None:
        if champion.previous is None:
            raise DotbiasError(f"The champion {champion.run_id} has no predecessor. Name a run with --run_id.")
        run_id = champion.previous.run_id
    if run_id == champion.run_id:
        raise DotbiasError(f"{run_id} is the champion already.")
    paths = RunPaths(root, run_id)
    if not _was_champion(paths):
        former = [name for name in dated_runs(root) if _was_champion(RunPaths(root, name))]
        raise DotbiasError(f"{run_id} never was champion. Former champions: {', '.join(former) or 'none'}.")
    export = join(paths.model, "export")
    version = version_after(champion)
    publish(root, export, version, read_manifest(paths.dataset, open_file), paths.dataset)
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
