"""Makes environments for peers, which need other versions of packages than this project."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path


def peer_environment(directory: Path, packages: Sequence[str]) -> Path:
    """Returns the interpreter of an environment with these packages; makes it unless an earlier call has."""
    python = directory / "bin" / "python"
    # Written last, so that an interrupted installation begins again.
    ready = directory / "ready"
    if not ready.exists():
        print(f"# installing {' '.join(packages)} into {directory}", file=sys.stderr)
        venv.create(directory, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        ready.touch()
    return python
