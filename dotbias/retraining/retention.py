"""Deletes files that old runs no longer need, as the last step of a run, which may fail without harm."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dotbias.retraining.config import KeepConfig
from dotbias.retraining.runs import SERVING_DIRECTORY, RunPaths
from pipeline.manifest import SPLITS, DotbiasError, join
from pipeline.storage.files import delete_tree

_log = logging.getLogger("trainer.train")
# The parts of a model directory that are deleted: exports and the state for a warm start; metrics stay.
_MODEL_PARTS = ("export", "export_before_refit", "state", "checkpoints", "refit")


@dataclass(frozen=True)
class Deletions:
    """Lists the runs whose shards are deleted, the runs whose models are deleted, and the versions to delete."""

    shards: list[str]
    models: list[str]
    versions: list[int]


def plan_deletions(
    runs: Sequence[str],
    needed: Collection[str],
    versions: Mapping[int, str | None],
    serves: int,
    keep: KeepConfig,
) -> Deletions:
    """Chooses the files to delete.

    Args:
        runs: names of the runs, the oldest first.
        needed: runs that keep everything: the champion, its predecessor.
        versions: by version in `serving/`, except those of champion and predecessor, its run; a version whose run is
            unknown (None) is kept.
        serves: the version of the champion; a command that was killed left what is above it, and TensorFlow Serving
            would load that.
        keep: how many of the last runs keep their shards and models.
    """
    models = [run for run in runs[: -keep.exports] if run not in needed]
    return Deletions(
        shards=[run for run in runs[: -keep.shards] if run not in needed],
        models=models,
        versions=sorted(version for version, run in versions.items() if run in models or (run and version > serves)),
    )


def delete(root: str, deletions: Deletions) -> None:
    """Deletes the chosen files; one that cannot be deleted gives a warning."""
    directories = [join(root, SERVING_DIRECTORY, str(version)) for version in deletions.versions]
    for run in deletions.shards:
        directories += [join(RunPaths(root, run).dataset, split) for split in SPLITS]
    for run in deletions.models:
        directories += [join(RunPaths(root, run).model, part) for part in _MODEL_PARTS]
    for directory in directories:
        try:
            delete_tree(directory)
        except DotbiasError as error:
            _log.warning("An old directory stays: %s", error)
