"""Runs the stage that the command line names."""

from __future__ import annotations

from dotbias.cli.registry import find_stage
from dotbias.cli.stage import Arguments


def run_command(arguments: Arguments) -> None:
    """Runs the stage and prints what it hands back.

    Raises:
        UsageError: flags, configuration or input are wrong; nothing was done.
        DotbiasError: the stage failed for a reason that its message gives.
    """
    outcome = find_stage(arguments.stage).run(arguments)
    print(outcome.text, end="")
