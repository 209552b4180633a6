"""The stage `evaluate`: an exported model, measured on a split of a run's dataset or on new files."""

from __future__ import annotations

import time
from importlib.util import find_spec

from command.arguments import Arguments
from command.configuration import Configuration
from command.evaluation_summary import evaluation_summary
from command.failures import UsageError
from command.logs import silent_imports
from command.progress import ProgressDisplay
from pipeline.input_files import is_remote
from pipeline.manifest import join, read_manifest


def evaluate_run(arguments: Arguments, configuration: Configuration, run: str) -> str:
    """Evaluates, unless that is done; returns what to print.

    Raises:
        UsageError: the packages of the extra `evaluation` are not installed.
        DotbiasError: there is no dataset, model or row to evaluate, or they do not fit each other.
    """
    if missing := [name for name in ("isal", "pyarrow", "sklearn", "tensorflow") if find_spec(name) is None]:
        raise UsageError(f"--stage evaluate needs {missing[0]}: pip install '.[trainer,evaluation]'")
    if not is_remote(run):
        # Says that the dataset is missing before anything else is done.
        read_manifest(join(run, "dataset"))
    with silent_imports(arguments.verbose):
        from evaluation.evaluate import Question, evaluate
    question = Question(run, arguments.split, configuration.pipeline.input, arguments.export)
    progress = ProgressDisplay()
    started = time.monotonic()
    try:
        answer = evaluate(question, progress)
    finally:
        progress.close()
    return evaluation_summary(answer.evaluation, answer.directory, None if answer.found else time.monotonic() - started)
