"""Reads and writes small JSON files, each of which is complete or missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.storage.files import write_file


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def write_json(path: Path | str, value: Any) -> None:
    """Writes a file, local or remote; it appears when it is complete.

    Raises:
        DotbiasError: the disk refuses.
    """
    write_file(str(path), (json.dumps(value, indent=2) + "\n").encode())
