"""Runs the stage `export`: writes another export of a trained model, which recommends only the items of a list."""

from __future__ import annotations

from pathlib import PurePosixPath

from dotbias.cli.console.logs import silent_imports
from dotbias.cli.console.progress import ProgressDisplay
from dotbias.cli.console.summary import section
from dotbias.cli.failures import UsageError
from dotbias.cli.flags import RUN_FLAGS, Flag
from dotbias.cli.run_lock import locked_run
from dotbias.cli.stage import Arguments, Outcome, Stage
from dotbias.cli.steps.prepare import check_workers, prepare
from pipeline.manifest import join

EXPORTS_DIRECTORY = "exports"
ITEMS = Flag("--items", "a file with the items that may be recommended, one id a line", {"metavar": "FILE"})
EXPORT = Flag("--export", "the exported model to take; default: the run's own", {"metavar": "DIRECTORY"})


def run(arguments: Arguments) -> Outcome:
    """Writes `<run>/exports/<name of the list>/`; nothing is trained."""
    items = arguments.own["items"]
    if items is None:
        raise UsageError("--stage export needs a list of items: --items FILE, with one id a line")
    prepared = prepare(arguments, reads_log=False)
    check_workers(arguments.stage, one_process=True)
    export = arguments.own["export"] or join(prepared.model, "export")
    directory = join(prepared.run, EXPORTS_DIRECTORY, PurePosixPath(items).stem)
    with silent_imports(arguments.verbose):
        from trainer.output.export import export_with_items
    with locked_run(prepared.run), ProgressDisplay() as progress:
        progress("export", 0, None, {})
        found = export_with_items(export, items, directory, prepared.dataset)
    lines = [directory, f"recommends {found.items:,} items"]
    if found.unknown:
        lines.append(f"{found.unknown:,} more items of {items} are left out, as the model does not know them")
    facts = {"items": found.items, "unknown_items": found.unknown, "paths": {"export": directory}}
    return Outcome("\n".join(section("Export", lines)) + "\n", facts)


STAGE = Stage(
    "export",
    "writes another export of the model that recommends only the items of a list; trains nothing",
    (*RUN_FLAGS, ITEMS, EXPORT),
    run,
)
