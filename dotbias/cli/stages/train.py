"""Runs the stage `train`: trains a model on the dataset of a run, exports it, and writes the report."""

from __future__ import annotations

from dotbias.cli.console.facts import run_facts
from dotbias.cli.console.progress import ProgressDisplay
from dotbias.cli.console.summary import RunReport, summary
from dotbias.cli.flags import RUN_FLAGS
from dotbias.cli.run_lock import locked_run
from dotbias.cli.stage import Arguments, Outcome, Stage
from dotbias.cli.steps.evaluation import report_on_run
from dotbias.cli.steps.prepare import check_workers, is_chief, prepare
from dotbias.cli.steps.training import train_model
from pipeline.manifest import read_manifest
from pipeline.storage.paths import is_remote


def run(arguments: Arguments) -> Outcome:
    """Trains unless the model is there."""
    prepared = prepare(arguments, reads_log=False)
    check_workers(arguments.stage, one_process=False)
    report = RunReport(prepared.dataset, prepared.model)
    if not is_remote(report.dataset):
        # Fails before TensorFlow is imported if the dataset is missing.
        report.manifest = read_manifest(report.dataset)
    with locked_run(prepared.run), ProgressDisplay() as progress:
        train_model(report, prepared.configuration.trainer, progress, arguments.verbose)
        if is_chief():
            with report.timed("report", progress):
                report.page = report_on_run(report, prepared.run, None, {}, arguments.verbose)
    return Outcome(summary(report), run_facts(report))


STAGE = Stage("train", "trains and exports a model on the dataset of the run", RUN_FLAGS, run)
