"""Writes the report of a run if the packages that draw it are installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dotbias.cli.console.logs import silent_imports
from dotbias.cli.steps.packages import DRAWING, missing_package
from pipeline.manifest import join
from trainer.data.files import exists

if TYPE_CHECKING:
    from dotbias.evaluation.results import Evaluation

REPORT_NAME = "report.html"


def find_report(run: str) -> str | None:
    """Returns the path of the report of a run, local or remote; None if there is none."""
    path = join(run, REPORT_NAME)
    return path if exists(path) else None


def write_run_report(
    run: str,
    verbose: bool,
    *,
    directory: str,
    export: str,
    evaluation: Evaluation | None = None,
    titles: Mapping[str, Mapping[str, str]] | None = None,
) -> str | None:
    """Writes `report.html` into a directory; returns its path.

    Without the packages of the extra `evaluation` it does nothing and returns None, so that a machine that only trains
    does not need them.
    """
    if missing_package(DRAWING):
        return None
    with silent_imports(verbose):
        from dotbias.evaluation.report.run_page import write_run_page
    path = join(directory, REPORT_NAME)
    write_run_page(path, run, export, evaluation, titles or {})
    return path
