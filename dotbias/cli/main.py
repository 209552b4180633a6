"""Runs the command and says by an exit code and a line on stderr how it ended."""

from __future__ import annotations

import sys

# What takes time to import is imported in `_run`, where a signal finds its handler.
from dotbias.cli.signals import end_on_signals

DONE, FAILED, WRONG_USAGE = 0, 1, 2


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit code. Raises what no message explains, so that it shows a traceback."""
    with end_on_signals():
        return _run(argv)


def _run(argv: list[str]) -> int:
    from dotbias.cli.arguments import parse_arguments
    from dotbias.cli.failures import UsageError, explanation
    from dotbias.cli.stages.run import run_stages
    from trainer.loop.interruption import Interrupted

    try:
        run_stages(parse_arguments(argv))
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
    print(f"run_pipeline.py: {kind}: {' '.join(message.split())}", file=sys.stderr, flush=True)
