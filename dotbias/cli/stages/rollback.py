"""Runs the stage `rollback`: makes a former champion serve again."""

from __future__ import annotations

from dotbias.cli.console.logs import set_up_logs, silent_imports
from dotbias.cli.flags import JSON, OUTPUT_ROOT, VERBOSE, Flag
from dotbias.cli.stage import Arguments, Outcome, Stage

RUN = Flag("--run_id", "the run to put back; default: the predecessor of the champion", {"metavar": "NAME"})


def run(arguments: Arguments) -> Outcome:
    """Publishes the former model under a version above the current one."""
    set_up_logs(arguments.verbose)
    with silent_imports(arguments.verbose):
        from dotbias.retraining.serving import roll_back
    champion = roll_back(arguments.output_root, arguments.own["run_id"])
    return Outcome(f"Serving     {champion.run_id}, version {champion.version}\n", champion.model_dump(mode="json"))


STAGE = Stage("rollback", "puts a former champion back", (RUN, OUTPUT_ROOT, JSON, VERBOSE), run)
