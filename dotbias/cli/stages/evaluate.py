"""The stage `evaluate`: an exported model, measured on a split of a run's dataset or on new files."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from dotbias.cli.arguments import Arguments
from dotbias.cli.configuration.load import Configuration
from dotbias.cli.console.evaluation_summary import evaluation_summary
from dotbias.cli.console.logs import silent_imports
from dotbias.cli.console.progress import ProgressDisplay
from dotbias.cli.failures import UsageError
from dotbias.cli.stages.report import write_run_report
from dotbias.evaluation.titles import read_titles
from pipeline.manifest import DatasetManifest, DotbiasError, join, read_manifest
from pipeline.storage.paths import is_remote

# Of memory, for each train and eval row: 60 were measured with vocabularies; hashed ids that are text take more.
_BYTES_A_ROW = 150
_NEEDED = ("isal", "pyarrow", "scipy", "sklearn", "tensorflow")


def evaluate_run(
    arguments: Arguments, configuration: Configuration, run: str, titles: Mapping[str, Mapping[str, str]]
) -> str:
    """Evaluates, unless that is done, and writes the report of it; returns what to print.

    The report of the run's own export is the run's; that of another stands beside its evaluation.

    Raises:
        UsageError: the packages of the extra `evaluation` are not installed.
        DotbiasError: there is no dataset, model or row to evaluate, or they do not fit each other.
    """
    if missing := _missing(_NEEDED):
        raise UsageError(f"--stage evaluate needs {missing}: pip install '.[trainer,evaluation]'")
    if not is_remote(run):
        # Says that the dataset is missing before anything else is done.
        read_manifest(join(run, "dataset"))
    with silent_imports(arguments.verbose):
        from dotbias.evaluation.evaluate import evaluate
        from dotbias.evaluation.request import EvaluationRequest
    request = EvaluationRequest(run, arguments.split, configuration.pipeline.input, arguments.export)
    progress = ProgressDisplay()
    started = time.monotonic()
    try:
        answer = evaluate(request, progress)
    finally:
        progress.close()
    seconds = None if answer.reused else time.monotonic() - started
    page = write_run_report(
        run,
        arguments.verbose,
        directory=run if arguments.export is None else answer.directory,
        export=answer.evaluation.subject.export,
        evaluation=answer.evaluation,
        titles=titles,
    )
    return evaluation_summary(answer.evaluation, answer.directory, seconds, page)


def why_not_evaluated(manifest: DatasetManifest, available: int | None) -> str:
    """What keeps a run from an evaluation at its end, which is no failure; empty if nothing does.

    Args:
        manifest: of the dataset.
        available: bytes of memory; None where not known.
    """
    if missing := _missing((*_NEEDED, "markupsafe", "plotly")):
        return f"an evaluation needs {missing}: pip install '.[evaluation]'"
    if not manifest.splits["eval"].rows:
        return "there are no eval rows; --stage evaluate --input measures the model on new files"
    needed = _BYTES_A_ROW * sum(split.rows for split in manifest.splits.values())
    if available is not None and needed > available:
        return (
            f"an evaluation holds all rows in memory, which may take {needed / 2**30:.0f} GiB of "
            f"{available / 2**30:.0f} available; --stage evaluate does it on a larger machine"
        )
    return ""


def _missing(packages: Sequence[str]) -> str | None:
    return next((name for name in packages if find_spec(name) is None), None)


def titles_by_feature(path: str | None, configuration: Configuration) -> dict[str, Mapping[str, str]]:
    """The titles in a file: by feature of the items, by token; empty without a file.

    Raises:
        UsageError: it holds no titles.
    """
    if path is None:
        return {}
    features = configuration.pipeline.features
    try:
        return read_titles(path, [name for name, feature in features.items() if feature.side == "item"])
    except DotbiasError as error:
        raise UsageError(f"--titles: {error}") from None
