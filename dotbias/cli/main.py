"""Runs the command; reports an error by an exit code and one line on stderr."""

from __future__ import annotations

import sys

# What takes time to import is imported in `_run`, where a signal finds its handler.
from dotbias.cli.program import program_name
from dotbias.cli.signals import end_on_signals

DONE, FAILED, WRONG_USAGE = 0, 1, 2


def main(argv: list[str] | None = None) -> int:
    """Runs the command, by default the process's own, and returns its exit code.

    An error that no message explains is raised, so that its traceback is shown.
    """
    with end_on_signals():
        return _run(sys.argv[1:] if argv is None else argv)


def _run(argv: list[str]) -> int:
    from dotbias.cli.arguments import parse_arguments
    from dotbias.cli.command import run_command
    from dotbias.cli.failures import UsageError, explanation
    from trainer.loop.interruption import Interrupted

    try:
        run_command(parse_arguments(argv))
    except UsageError as error:
        _complain(str(error))
        return WRONG_USAGE
    except Interrupted as stop:
        # Training has saved a checkpoint.
        _complain(str(stop), kind="stopped")
        return stop.exit_code
    except Exception as error:
        message = explanation(error)
        if message is None:
            raise
        _complain(message)
        return FAILED
    return DONE


def _complain(message: str, kind: str = "error") -> None:
    sys.stdout.flush()
    print(f"{program_name()}: {kind}: {' '.join(message.split())}", file=sys.stderr, flush=True)
