"""Reads and writes small JSON files, each of which is complete or missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.manifest import DotbiasError
from pipeline.storage.paths import is_remote


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def write_json(path: Path | str, value: Any) -> None:
    """Writes a file, local or remote; a local one is renamed when it is complete.

    Raises:
        DotbiasError: the disk refuses.
    """
    text = json.dumps(value, indent=2) + "\n"
    if is_remote(str(path)):
        # Imported here, since a machine that only trains has no isal.
        from pipeline.storage.files import write_file

        write_file(str(path), text.encode(), "")
        return
    partial = Path(f"{path}.partial")
    try:
        partial.write_text(text)
        partial.replace(path)
    except OSError as error:
        raise DotbiasError(f"{path} cannot be written: {error.strerror or error}. Fix this and rerun.") from error
