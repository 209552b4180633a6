"""Lists the stages. Each is a module of `dotbias.cli.stages` that declares `STAGE`; it is imported when needed."""

from __future__ import annotations

from importlib import import_module

from dotbias.cli.flags import Flag
from dotbias.cli.stage import Stage

# In the order of `--help`.
STAGE_NAMES = (
    "all",
    "plan",
    "preprocess",
    "train",
    "evaluate",
    "export",
    "recommend",
    "tune",
    "compare_encodings",
    "retrain",
    "history",
    "rollback",
    "pin",
)
DEFAULT_STAGE = "all"
# Modules of stages that are in a folder.
_IN_FOLDERS = {"export": "recommending.export", "recommend": "recommending.recommend"}


def find_stage(name: str) -> Stage:
    """Returns the stage of that name, one of `STAGE_NAMES`."""
    stage: Stage = import_module(f"dotbias.cli.stages.{_IN_FOLDERS.get(name, name)}").STAGE
    return stage


def all_stages() -> list[Stage]:
    return [find_stage(name) for name in STAGE_NAMES]


def own_flags() -> list[str]:
    """Returns the names of all flags of all stages, to suggest one of them or to keep them from Beam."""
    return ["--help", "--stage", *dict.fromkeys(flag.name for stage in all_stages() for flag in stage.flags)]


def foreign_flags(stage: Stage) -> list[tuple[Flag, list[str]]]:
    """Returns the flags that only other stages take, each with the names of those stages."""
    taken = {flag.name for flag in stage.flags}
    found: dict[str, tuple[Flag, list[str]]] = {}
    for other in all_stages():
        for flag in other.flags:
            if flag.name not in taken:
                found.setdefault(flag.name, (flag, []))[1].append(other.name)
    return list(found.values())
