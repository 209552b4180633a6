"""Says how the command was called, for messages and for the commands that it prints."""

from __future__ import annotations

import sys
from pathlib import Path


def program_name() -> str:
    """Returns `dotbias` for the installed command, else `run_pipeline.py`."""
    return "dotbias" if Path(sys.argv[0]).stem == "dotbias" else "run_pipeline.py"


def typed_command() -> str:
    """Returns the start of a command line as the user types it."""
    name = program_name()
    return name if name == "dotbias" else f"python {name}"
