"""The stage `evaluate`: an exported model, measured on a split of a run's dataset or on new files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.util import find_spec

from command.arguments import Arguments
from command.configuration import Configuration
from command.evaluation_summary import evaluation_summary
from command.failures import UsageError
from command.logs import silent_imports
from command.progress import ProgressDisplay
from command.report import write_run_report
from evaluation.titles import read_titles
from pipeline.input_files import is_remote
from pipeline.manifest import DotbiasError, join, read_manifest


def evaluate_run(arguments: Arguments, configuration: Configuration, run: str) -> str:
    """Evaluates, unless that is done, and writes the report of it; returns what to print.

    The report of the run's own export is the run's; that of another stands beside its evaluation.

    Raises:
        UsageError: the packages of the extra `evaluation` are not installed, or `--titles` names a file without titles.
        DotbiasError: there is no dataset, model or row to evaluate, or they do not fit each other.
    """
    if missing := [name for name in ("isal", "pyarrow", "sklearn", "tensorflow") if find_spec(name) is None]:
        raise UsageError(f"--stage evaluate needs {missing[0]}: pip install '.[trainer,evaluation]'")
    titles = _titles(arguments.titles, configuration)
    if not is_remote(run):
        # Says that the dataset is missing before anything else is done.
        read_manifest(join(run, "dataset"))
    with silent_imports(arguments.verbose):
        from evaluation.evaluate import evaluate
        from evaluation.question import Question
    question = Question(run, arguments.split, configuration.pipeline.input, arguments.export)
    progress = ProgressDisplay()
    started = time.monotonic()
    try:
        answer = evaluate(question, progress)
    finally:
        progress.close()
    seconds = None if answer.found else time.monotonic() - started
    page = write_run_report(
        run,
        arguments.verbose,
        directory=run if arguments.export is None else answer.directory,
        export=answer.evaluation.subject.export,
        evaluation=answer.evaluation,
        titles=titles,
    )
    return evaluation_summary(answer.evaluation, answer.directory, seconds, page)


def _titles(path: str | None, configuration: Configuration) -> dict[str, Mapping[str, str]]:
    """By feature of the items, by token."""
    if path is None:
        return {}
    features = configuration.pipeline.features
    try:
        return read_titles(path, [name for name, feature in features.items() if feature.side == "item"])
    except DotbiasError as error:
        raise UsageError(f"--titles: {error}") from None
