"""Runs the stage `history`: shows the decisions of all nights, and the model that serves."""

from __future__ import annotations

from dotbias.cli.configuration.load import load_configuration
from dotbias.cli.console.logs import set_up_logs, silent_imports
from dotbias.cli.flags import CONFIG, JSON, OUTPUT_ROOT, SET, VERBOSE
from dotbias.cli.stage import Arguments, Outcome, Stage


def run(arguments: Arguments) -> Outcome:
    """Prints the nights and writes `history.html`."""
    configuration = load_configuration(arguments.config, arguments.overrides)
    set_up_logs(arguments.verbose)
    with silent_imports(arguments.verbose):
        from dotbias.retraining.champion import Throne
        from dotbias.retraining.history import history_json, history_text, read_history
        from dotbias.retraining.history_page import write_history
    champion, _ = Throne(arguments.output_root).read()
    history = read_history(arguments.output_root, champion, configuration.retraining.warn_after)
    if history.nights:
        write_history(arguments.output_root, history)
    return Outcome(history_text(history), history_json(history))


STAGE = Stage(
    "history",
    "shows the decisions of all nights, and the model that serves",
    (JSON, OUTPUT_ROOT, CONFIG, SET, VERBOSE),
    run,
)
