"""Runs the stage `rollback`: makes a former champion serve again."""

from __future__ import annotations

from dotbias.cli.console.logs import set_up_logs, silent_imports
from dotbias.cli.flags import JSON, OUTPUT_ROOT, VERBOSE, Flag
from dotbias.cli.stage import Arguments, Outcome, Stage

TO = Flag("--to", "the run to put back; default: the predecessor of the champion", {"metavar": "RUN"})


def run(arguments: Arguments) -> Outcome:
    """Publishes the former model under a version above the current one."""
    set_up_logs(arguments.verbose)
    with silent_imports(arguments.verbose):
        from dotbias.retraining.serving import roll_back
    champion = roll_back(arguments.output_root, arguments.own["to"])
    return Outcome(f"Serving     {champion.run_id}, version {champion.version}\n", champion.model_dump(mode="json"))


STAGE = Stage("rollback", "puts a former champion back", (TO, OUTPUT_ROOT, JSON, VERBOSE), run)
