"""Runs the stage `recommend`: a Beam job that lists the best items for all users."""

from __future__ import annotations

import re
import time

from dotbias.cli.console.logs import silent_imports
from dotbias.cli.console.progress import ProgressDisplay
from dotbias.cli.console.summary import section
from dotbias.cli.failures import UsageError
from dotbias.cli.flags import RUN_FLAGS, Flag
from dotbias.cli.run_lock import locked_run
from dotbias.cli.stage import Arguments, Outcome, Stage
from dotbias.cli.stages.recommending.export import EXPORT, ITEMS
from dotbias.cli.steps.dataset import let_workers_import
from dotbias.cli.steps.packages import require_packages
from dotbias.cli.steps.prepare import check_workers, prepare
from pipeline.manifest import join, read_manifest
from pipeline.storage.paths import is_remote

_TABLE_NAME = "PROJECT.DATASET.TABLE"
_SPLITS = {"train": ("train",), "all": ("train", "eval")}
_K = Flag("--k", "items for each user; default: %(default)s", {"metavar": "NUMBER", "type": int, "default": 10})
_FORMAT = Flag("--format", "of the files; default: %(default)s", {"choices": ("parquet", "csv"), "default": "parquet"})
_USERS = Flag(
    "--users",
    "a file with the users to list items for, one id a line, or Parquet with their column; default: all of the "
    "vocabulary",
    {"metavar": "FILE"},
)
_USERS_TABLE = Flag("--users_table", "a BigQuery table with the users' column instead", {"metavar": _TABLE_NAME})
_TABLE = Flag(
    "--table",
    "a BigQuery table that is replaced by the lists; --output_root is on gs:// then",
    {"metavar": _TABLE_NAME},
)
_LEAVE_OUT = Flag(
    "--leave_out",
    "rows of the dataset that are not listed again: train, or all (eval rows too); default: %(default)s",
    {"choices": tuple(_SPLITS), "default": "train"},
)
_EXCLUDE = Flag(
    "--exclude",
    "CSV or Parquet files with the columns of users and items: pairs to leave out besides",
    {"metavar": "FILE", "nargs": "+", "action": "extend", "default": []},
)


def run(arguments: Arguments) -> Outcome:
    """Writes `<run>/recommendations/`, unless it is there."""
    own = arguments.own
    if own["k"] < 1:
        raise UsageError(f"--k should be at least 1. Received: {own['k']}")
    for flag in ("table", "users_table"):
        if own[flag] is not None and not re.fullmatch(r"[^.]+\.[^.]+\.[^.]+", own[flag]):
            raise UsageError(f"--{flag} should be {_TABLE_NAME}. Received: {own[flag]!r}")
    if own["users"] is not None and own["users_table"] is not None:
        raise UsageError("--users and --users_table name the same thing; give one of them")
    if own["table"] is not None and not (arguments.output_root.startswith("gs://") and own["format"] == "parquet"):
        raise UsageError("--table takes the Parquet files of an --output_root on gs://, from which BigQuery loads them")
    prepared = prepare(arguments, reads_log=False)
    check_workers(arguments.stage, one_process=True)
    if "--dry_run" in arguments.beam:
        raise UsageError("--dry_run checks the job of --stage preprocess; --stage recommend has nothing to check")
    require_packages(arguments.stage, ("apache_beam", "isal", "pyarrow", "tensorflow"), "all")
    if not is_remote(prepared.run):
        # Fails before TensorFlow is imported if the dataset is missing.
        read_manifest(prepared.dataset)
    with silent_imports(arguments.verbose):
        from dotbias.recommending.recommend import RecommendRequest, recommend
        from dotbias.recommending.results import LISTS_DIRECTORY, RECOMMENDATIONS_NAME, Recommendations
    request = RecommendRequest(
        run=prepared.run,
        export=own["export"] or join(prepared.model, "export"),
        k=own["k"],
        format=own["format"],
        users=own["users"],
        users_table=own["users_table"],
        items=own["items"],
        exclude=own["exclude"],
        splits=_SPLITS[own["leave_out"]],
        table=own["table"],
    )
    let_workers_import()
    started = time.monotonic()
    with locked_run(prepared.run), ProgressDisplay() as progress:
        made, ran = recommend(request, prepared.for_beam, progress)
    seconds = time.monotonic() - started
    if not isinstance(made, Recommendations):
        said = f"submitted: {made.job_id or 'the job'} writes {request.directory}"
        return Outcome("\n".join(section("Lists", [said])) + "\n", {"job_id": made.job_id})
    lines = [
        f"{made.users:,} users x {made.k} of {made.items:,} items = {made.rows:,} rows"
        + (f"; {made.short:,} users have fewer than {made.k}" if made.short else ""),
        f"left out: {made.seen.used:,} of {made.seen.rows:,} {' and '.join(made.splits)} rows"
        + (f", {made.exclude.used:,} of {made.exclude.rows:,} rows of --exclude" if made.files["exclude"] else ""),
    ]
    if made.unknown_users:
        lines.append(f"{made.unknown_users:,} users are not in the vocabulary and get the list of a new user")
    if made.unknown_items:
        lines.append(f"{made.unknown_items:,} items of {request.items} are left out, as the model does not know them")
    lines.append(f"{join(request.directory, LISTS_DIRECTORY)}/*.{made.format}")
    if made.table is not None:
        lines.append(f"also in the table {made.table}")
    lines.append(f"{seconds:.1f} s" if ran else "already done by an earlier start")
    facts = {
        **made.model_dump(mode="json", include={"k", "users", "items", "rows", "short", "seen", "exclude"}),
        "paths": {"recommendations": join(request.directory, RECOMMENDATIONS_NAME)},
        "already_done": [] if ran else ["recommend"],
        "seconds": {"recommend": round(seconds, 3)} if ran else {},
    }
    return Outcome("\n".join(section("Lists", lines)) + "\n", facts)


STAGE = Stage(
    "recommend",
    "lists the best items for all users, except items in their train rows",
    (*RUN_FLAGS, _K, _FORMAT, _TABLE, _USERS, _USERS_TABLE, ITEMS, _LEAVE_OUT, _EXCLUDE, EXPORT),
    run,
)
