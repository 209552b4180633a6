"""Declares the flags that several stages take. A flag of one stage is declared in the module of the stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Flag:
    """Describes a flag; `options` are more arguments of argparse's `add_argument`, such as `choices` or `metavar`."""

    name: str
    help: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Returns the name without its dashes."""
        return self.name.removeprefix("--")


CONFIG = Flag(
    "--config",
    "a YAML file with the sections `pipeline` and `trainer`, or the name of one that is installed: sample (the "
    "default), movielens, implicit or hashing",
    {"metavar": "FILE"},
)
INPUT = Flag(
    "--input",
    "files or globs of the log, local or gs://; instead of `pipeline.input.patterns`",
    {"metavar": "PATTERN", "nargs": "+", "action": "extend", "default": []},
)
OUTPUT_ROOT = Flag(
    "--output_root",
    "runs go to DIRECTORY/runs/; default: %(default)s",
    {"metavar": "DIRECTORY", "default": "out"},
)
RUN_ID = Flag(
    "--run_id",
    "the run's directory, such as its date; default: the name of the configuration",
    {"metavar": "NAME"},
)
SET = Flag(
    "--set",
    "another value for one key, e.g. trainer.epochs=5; repeatable",
    {"metavar": "KEY=VALUE", "action": "append", "default": []},
)
# A stage that takes --runner takes all flags of Beam.
RUNNER = Flag("--runner", "where the Beam job runs; default: in this process (DirectRunner)", {"metavar": "RUNNER"})
VERBOSE = Flag("--verbose", "show the logs of Beam and TensorFlow", {"action": "store_true"})

JSON = Flag(
    "--json",
    "also write the summary as JSON to FILE, local or gs://; without FILE, print the JSON instead of the text",
    {"metavar": "FILE", "nargs": "?", "const": "-"},
)

# The stages of one run take the same flags, so that one command can be repeated with another stage.
RUN_FLAGS = (CONFIG, INPUT, OUTPUT_ROOT, RUN_ID, SET, RUNNER, JSON, VERBOSE)

TITLES = Flag("--titles", "a CSV file with titles and ids of items, for the report", {"metavar": "FILE"})
FAIL_ON = Flag(
    "--fail_on",
    "exit with 1 if the verdict is this bad, or if there is none: `stop`: Do not ship; `look`: also Look before you "
    "ship. The results are written all the same",
    {"choices": ("stop", "look")},
)
