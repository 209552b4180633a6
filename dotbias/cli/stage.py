"""Defines a stage of the command: its flags, its arguments and its outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dotbias.cli.flags import Flag

if TYPE_CHECKING:
    from dotbias.evaluation.verdict import Verdict


@dataclass(frozen=True)
class Arguments:
    """Holds the parsed command line.

    `input` replaces `pipeline.input.patterns` unless it is empty. `json` is a file, or "-" for standard output. `beam`
    holds the flags for Beam; `known_flags` are the names of all flags of all stages, for messages about a flag that is
    neither. `own` holds the values of the stage's other flags by name, such as `split`; a flag that was not given has
    its default.
    """

    stage: str
    config: str
    input: tuple[str, ...]
    output_root: str
    run_id: str
    overrides: tuple[str, ...]
    runner: str | None
    verbose: bool
    json: str | None
    beam: tuple[str, ...]
    known_flags: tuple[str, ...] = ()
    own: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Holds the outcome of a stage.

    `text` is printed as it is. `facts` are the same as values, for `--json`. `verdict` is judged by `--fail_on`; it is
    None for a stage, or a worker, that evaluates no model.
    """

    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Stage:
    """Describes a stage: `help` is one line for `--help`, `flags` are all flags that it takes.

    `run` does the work, and raises `UsageError` before any work or `DotbiasError` for a failure that its message
    explains. It imports Beam and TensorFlow itself, so that `--help` and mistakes are answered at once.
    """

    name: str
    help: str
    flags: tuple[Flag, ...]
    run: Callable[[Arguments], Outcome]
