"""The report of a run, where the packages that draw it are installed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from dotbias.cli.console.logs import silent_imports
from pipeline.manifest import join

if TYPE_CHECKING:
    from dotbias.evaluation.results import Evaluation

REPORT_NAME = "report.html"


def find_report(run: str) -> str | None:
    """The report of a run, local or not, if there is one."""
    import tensorflow as tf

    path = join(run, REPORT_NAME)
    return path if tf.io.gfile.exists(path) else None


def write_run_report(
    run: str,
    verbose: bool,
    *,
    directory: str,
    export: str,
    evaluation: Evaluation | None = None,
    titles: Mapping[str, Mapping[str, str]] | None = None,
) -> str | None:
    """Writes `report.html` into a directory; returns where it is.

    Returns None, and does nothing, without the packages of the extra `evaluation`: a machine that only trains needs no
    plots, and a training does not fail for the want of them.
    """
    if find_spec("plotly") is None or find_spec("markupsafe") is None:
        return None
    with silent_imports(verbose):
        from dotbias.evaluation.report.run_page import write_run_page
    path = join(directory, REPORT_NAME)
    write_run_page(path, run, export, evaluation, titles or {})
    return path
