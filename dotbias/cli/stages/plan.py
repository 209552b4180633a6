"""Runs the stage `plan`: estimates time, memory and cost from a sample of the log."""

from __future__ import annotations

from dataclasses import asdict

from dotbias.cli.console.logs import silent_imports
from dotbias.cli.failures import UsageError
from dotbias.cli.flags import RUN_FLAGS
from dotbias.cli.stage import Arguments, Outcome, Stage
from dotbias.cli.steps.prepare import prepare


def run(arguments: Arguments) -> Outcome:
    """Reads a sample of the log; writes nothing."""
    configuration = prepare(arguments, reads_log=True).configuration
    if not configuration.pipeline.input.patterns and configuration.pipeline.input.format != "bigquery":
        raise UsageError("there is nothing to plan for generated data; name a log with --input")
    with silent_imports(arguments.verbose):
        from dotbias.cli.console.plan_report import plan_report
        from pipeline.planning.estimate import make_plan
    plan = make_plan(configuration.pipeline)
    return Outcome(plan_report(plan, configuration), asdict(plan))


STAGE = Stage("plan", "estimates rows, memory and cost from a sample of the log; writes nothing", RUN_FLAGS, run)
