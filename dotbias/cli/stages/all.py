"""Runs the stage `all`: preprocesses, trains, and evaluates the model on the eval rows."""

from __future__ import annotations

from dotbias.cli.console.facts import run_facts
from dotbias.cli.console.progress import ProgressDisplay
from dotbias.cli.console.summary import RunReport, summary
from dotbias.cli.flags import FAIL_ON, RUN_FLAGS, TITLES
from dotbias.cli.run_lock import locked_run
from dotbias.cli.stage import Arguments, Outcome, Stage
from dotbias.cli.steps.dataset import generate, make_dataset
from dotbias.cli.steps.evaluation import evaluate_at_end, report_on_run, titles_by_feature
from dotbias.cli.steps.prepare import check_workers, is_chief, prepare
from dotbias.cli.steps.training import measure_on_sample, train_model


def run(arguments: Arguments) -> Outcome:
    """Runs the steps that are not finished yet."""
    prepared = prepare(arguments, reads_log=True, trains=True)
    configuration, verbose = prepared.configuration, arguments.verbose
    check_workers(arguments.stage, one_process=False)
    titles = titles_by_feature(arguments.own["titles"], configuration)
    report = RunReport(prepared.dataset, prepared.model)
    with locked_run(prepared.run), ProgressDisplay() as progress:
        sample = generate(prepared, arguments.output_root, report, progress)
        make_dataset(prepared, sample, report, progress, verbose)
        train_model(report, configuration.trainer, progress, verbose)
        if is_chief():
            answer = evaluate_at_end(report, prepared.run, progress, verbose)
            with report.timed("report", progress):
                report.page = report_on_run(report, prepared.run, answer, titles, verbose)
            if sample is not None:
                measure_on_sample(report, configuration.pipeline, sample, progress)
    return Outcome(summary(report), run_facts(report), report.verdict)


STAGE = Stage("all", "preprocesses, trains and evaluates; the default", (*RUN_FLAGS, TITLES, FAIL_ON), run)
