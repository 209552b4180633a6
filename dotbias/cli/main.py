"""What an exit code and a line on stderr say of a run."""

from __future__ import annotations

import os
import sys

from dotbias.cli.arguments import parse_arguments
from dotbias.cli.failures import UsageError, explanation
from dotbias.cli.stages.run import run_stages
from trainer.loop.interruption import Interrupted

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit code. What no message explains is raised, so that it shows a traceback."""
    try:
        run_stages(parse_arguments(argv))
    except UsageError as error:
        _complain(str(error))
        return WRONG_USAGE
    except Interrupted as stop:
        # Training has saved a checkpoint. 143 is what a scheduler also sees of a stage that SIGTERM ends at once.
        _complain(str(stop), kind="stopped")
        return stop.exit_code
    except KeyboardInterrupt:
        _complain("interrupted; the same command goes on from what is finished", kind="stopped")
        # Threads and child processes of Beam and TensorFlow would go on working, or wait for each other.
        os._exit(INTERRUPTED)
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
