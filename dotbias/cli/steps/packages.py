"""Checks which packages of the optional dependencies are installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from dotbias.cli.failures import UsageError

DRAWING = ("markupsafe", "plotly")
MEASURING = ("isal", "pyarrow", "scipy", "sklearn", "tensorflow")


def missing_package(packages: Sequence[str]) -> str | None:
    """Returns the first package that is not installed, None if all are."""
    return next((name for name in packages if find_spec(name) is None), None)


def needs(what: str, missing: str, extra: str) -> str:
    """Returns the message for a missing package; `extra` names the optional dependencies that have it."""
    return f"{what} needs the package {missing}: install Dotbias with `{extra}`, as in pip install '.[{extra}]'"


def require_packages(stage: str, packages: Sequence[str], extra: str) -> None:
    """Raises `UsageError` if a package of a stage is not installed."""
    if missing := missing_package(packages):
        raise UsageError(needs(f"--stage {stage}", missing, extra))
