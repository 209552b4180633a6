"""Runs the stage `tune`: searches on the dataset of a run, and writes a configuration with the best options."""

from __future__ import annotations

from typing import Any

import yaml

from dotbias.cli.configuration.load import Configuration
from dotbias.cli.console.facts import run_facts
from dotbias.cli.console.logs import silent_imports
from dotbias.cli.console.progress import ProgressDisplay
from dotbias.cli.console.summary import RunReport, TuningResult, summary
from dotbias.cli.failures import UsageError
from dotbias.cli.flags import RUN_FLAGS
from dotbias.cli.run_lock import locked_run
from dotbias.cli.stage import Arguments, Outcome, Stage
from dotbias.cli.steps.packages import require_packages
from dotbias.cli.steps.prepare import check_workers, prepare
from pipeline.manifest import join, read_manifest
from pipeline.storage.paths import is_remote
from trainer.config import set_dotted

TUNE_DIRECTORY = "tune"
CONFIGURATION_NAME = "tuned.yaml"


def run(arguments: Arguments) -> Outcome:
    """Searches, unless the search is done."""
    prepared = prepare(arguments, reads_log=False)
    check_workers(arguments.stage, one_process=True)
    report = RunReport(prepared.dataset, prepared.model)
    if not is_remote(report.dataset):
        # Fails before TensorFlow is imported if the dataset is missing.
        report.manifest = read_manifest(report.dataset)
    with locked_run(prepared.run), ProgressDisplay() as progress, report.timed("tune", progress):
        report.tuning = tune_run(arguments, prepared.configuration, report.dataset, progress)
    return Outcome(summary(report), run_facts(report))


def tune_run(
    arguments: Arguments, configuration: Configuration, dataset: str, progress: ProgressDisplay
) -> TuningResult:
    """Searches, and writes `<run>/tune/tuned.yaml`: the configuration of the run with the options that were chosen.

    Raises:
        UsageError: the packages of the extra `tune` are not installed, or the run is not on a local disk.
        DotbiasError: there is nothing to search on.
    """
    require_packages("tune", ("optuna", "plotly"), "tune")
    if is_remote(arguments.output_root):
        raise UsageError(
            f"--stage tune keeps its journal on a local disk. Received: --output_root {arguments.output_root}"
        )
    with silent_imports(arguments.verbose):
        from trainer.search.tuning import tune
    directory = join(arguments.output_root, "runs", arguments.run_id, TUNE_DIRECTORY)
    tuned = tune(dataset, directory, configuration.trainer, progress)
    path = join(directory, CONFIGURATION_NAME)
    with open(path, "w") as file:
        file.write(tuned_configuration(configuration, tuned.values))
    return TuningResult(
        configuration=path,
        output_root=arguments.output_root,
        run_id=arguments.run_id,
        values=tuned.values,
        gain=tuned.gain,
        trials=tuned.trials,
        given_up=tuned.given_up,
        cost=tuned.cost,
    )


def tuned_configuration(configuration: Configuration, values: dict[str, Any]) -> str:
    """Returns the text of a configuration file: the given one, with `values` by dotted key of `trainer`."""
    # Keys that were not given stay out, since some keys exclude each other.
    sections = configuration.model_dump(mode="json", exclude_unset=True)
    for key, value in values.items():
        set_dotted(sections, f"trainer.{key}", value)
    return "# Written by --stage tune.\n" + yaml.safe_dump(sections, sort_keys=False)


STAGE = Stage("tune", "searches for better options of the trainer, on the dataset of the run", RUN_FLAGS, run)
