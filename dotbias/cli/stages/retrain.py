"""Runs the stage `retrain`: one night, from the log to the decision whether its model serves."""

from __future__ import annotations

import datetime
from dataclasses import replace

from dotbias.cli.configuration.load import Configuration
from dotbias.cli.console.logs import silent_imports
from dotbias.cli.console.progress import ProgressDisplay
from dotbias.cli.console.summary import section
from dotbias.cli.failures import UsageError
from dotbias.cli.flags import CONFIG, INPUT, JSON, OUTPUT_ROOT, RUNNER, SET, VERBOSE, Flag
from dotbias.cli.run_lock import locked_run
from dotbias.cli.stage import Arguments, Outcome, Stage
from dotbias.cli.steps.dataset import let_workers_import
from dotbias.cli.steps.packages import DRAWING, require_packages
from dotbias.cli.steps.prepare import check_workers, prepare
from pipeline.manifest import join

DATE = Flag("--date", "the date of the night: rows before its midnight (UTC) are used; required", {"metavar": "DATE"})
ONLY = Flag(
    "--only",
    "stop after preprocessing; the same command without the flag goes on from there, also on another machine",
    {"choices": ("preprocess",)},
)


def run(arguments: Arguments) -> Outcome:
    """Makes the run of the date and prints its decision; a date that has decided prints it again."""
    day = _date(arguments.own["date"])
    only_preprocess = arguments.own["only"] == "preprocess"
    arguments = replace(arguments, run_id=day.isoformat())
    prepared = prepare(arguments, reads_log=True, trains=not only_preprocess)
    check_workers(arguments.stage, one_process=True)
    configuration = prepared.configuration
    _check(configuration, prepared.generates)
    with silent_imports(arguments.verbose):
        from dotbias.retraining.decision import decision_text
        from dotbias.retraining.retrain import Night, preprocess_night, retrain
    night = Night(arguments.output_root, day, configuration.pipeline, configuration.trainer, configuration.retraining)
    let_workers_import()
    with locked_run(prepared.run), ProgressDisplay() as progress:
        if only_preprocess:
            submitted = preprocess_night(night, prepared.for_beam, progress)
            said = "submitted" if submitted else "complete"
            text = "\n".join(section("Dataset", [f"{said}: {night.paths.dataset}"])) + "\n"
            return Outcome(text, {"dataset": night.paths.dataset, "complete": not submitted})
        decision, history = retrain(night, prepared.for_beam, progress)
    places = [
        f"decision {night.paths.decision}",
        f"report   {night.paths.report}",
        f"history  {join(arguments.output_root, 'history.html')}",
    ]
    if decision.version is not None:
        places.append(f"serving  {join(arguments.output_root, 'serving', str(decision.version))}/")
    lines = [*section("Warning", history.warnings), *section("Files", places)]
    facts = {**decision.model_dump(mode="json"), "warnings": history.warnings}
    return Outcome(decision_text(decision) + "\n".join(lines) + "\n", facts)


def _date(text: str | None) -> datetime.date:
    try:
        # Other formats that `fromisoformat` takes would give one night two names.
        if text is not None and len(text) == len("2026-11-24"):
            return datetime.date.fromisoformat(text)
    except ValueError:
        pass
    received = "" if text is None else f". Received: {text!r}"
    raise UsageError(f"--stage retrain needs --date, such as --date 2026-11-24{received}")


def _check(configuration: Configuration, generates: bool) -> None:
    require_packages("retrain", (*DRAWING, "sklearn"), "all")
    if generates:
        raise UsageError("--stage retrain needs a log with timestamps; name its files with --input")
    if configuration.pipeline.timestamp_column is None:
        raise UsageError(
            "--stage retrain needs `pipeline.timestamp_column`, which selects the rows of a night; "
            f"columns: {list(configuration.pipeline.columns)}"
        )
    if configuration.retraining.mode == "incremental":
        _check_incremental(configuration)


def _check_incremental(configuration: Configuration) -> None:
    """Raises `UsageError` unless the counts of the log can be kept by file, from which the vocabularies are made."""
    pipeline, wrong = configuration.pipeline, ""
    if pipeline.input.format == "bigquery":
        wrong = "`pipeline.input.format: bigquery` has none"
    elif pipeline.duplicates != "keep":
        wrong = f"`pipeline.duplicates: {pipeline.duplicates}` drops rows of one file for those of another"
    if wrong:
        raise UsageError(f"`retraining.mode: incremental` counts the log file by file, and {wrong}; set `mode: full`")


STAGE = Stage(
    "retrain",
    "one night: preprocesses, trains from the champion's weights, publishes the model if it passes the gate",
    (DATE, CONFIG, INPUT, OUTPUT_ROOT, SET, RUNNER, JSON, VERBOSE, ONLY),
    run,
)
