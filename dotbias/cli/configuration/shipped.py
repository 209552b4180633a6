"""Finds the configurations that are installed with the package, by name."""

from __future__ import annotations

import difflib
from pathlib import Path

import dotbias

_DIRECTORY = Path(dotbias.__file__).parent / "configs"


def shipped_file(name: str) -> Path | None:
    """Returns the file of a shipped configuration such as `movielens`, None if there is none of that name."""
    return _files().get(name)


def no_such_file(path: str) -> str:
    """Returns the message for a path that is neither a file nor a shipped name."""
    # configs/movielens.yaml, typed outside a checkout, means the one that is installed.
    close = difflib.get_close_matches(Path(path).stem, _files(), n=1)
    hint = f"did you mean --config {close[0]}?" if close else f"shipped are: {', '.join(_files())}"
    return f"--config: there is no file {path}; {hint}"


def _files() -> dict[str, Path]:
    return {path.stem: path for path in sorted(_DIRECTORY.glob("*.yaml"))}
