"""Runs the stage `preprocess`: makes the dataset of a run."""

from __future__ import annotations

from dotbias.cli.console.facts import run_facts
from dotbias.cli.console.progress import ProgressDisplay
from dotbias.cli.console.summary import RunReport, summary
from dotbias.cli.flags import RUN_FLAGS
from dotbias.cli.run_lock import locked_run
from dotbias.cli.stage import Arguments, Outcome, Stage
from dotbias.cli.steps.dataset import generate, make_dataset
from dotbias.cli.steps.prepare import check_workers, prepare


def run(arguments: Arguments) -> Outcome:
    """Generates the sample if no log is named, and runs the Beam job."""
    prepared = prepare(arguments, reads_log=True)
    check_workers(arguments.stage, one_process=False)
    report = RunReport(prepared.dataset, prepared.model)
    with locked_run(prepared.run), ProgressDisplay() as progress:
        sample = generate(prepared, arguments.output_root, report, progress)
        make_dataset(prepared, sample, report, progress, arguments.verbose)
    return Outcome(summary(report), run_facts(report))


STAGE = Stage("preprocess", "makes the training shards from the log, with Beam", RUN_FLAGS, run)
