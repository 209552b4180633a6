"""Parses the command line: the stage, its flags, and what is left for Beam."""

from __future__ import annotations

import argparse
import difflib
from pathlib import PurePosixPath
from typing import Any, NoReturn

from dotbias.cli.failures import UsageError
from dotbias.cli.flags import RUN_FLAGS, RUN_ID, RUNNER, Flag
from dotbias.cli.program import program_name, typed_command
from dotbias.cli.registry import DEFAULT_STAGE, STAGE_NAMES, all_stages, find_stage, foreign_flags, own_flags
from dotbias.cli.stage import Arguments, Stage

# Shipped with the package.
_SAMPLE_CONFIG = "sample"

_DESCRIPTION = """\
From an interaction log to a dot-product-plus-bias model that can be served.
An Apache Beam job turns the log into training shards; a TensorFlow trainer turns the shards into a SavedModel."""

_EXAMPLES = """\
examples:
  {command}
      the sample: generates interactions, preprocesses them and trains, on this machine
  {command} --config movielens --input 'ratings*.csv' --run_id 2026-11-24
      your own log
  {command} --config movielens --input ratings.csv --set trainer.embedding_dim=64
      another value for one key of the configuration
  {command} evaluate --config movielens --input new.csv
      measures the model of that run on rows that it has not seen
  {command} preprocess --config gs://bucket/retrain.yaml --output_root gs://bucket/out \\
      --runner DataflowRunner --project my-project --region europe-west1 --temp_location gs://bucket/tmp
      the Beam job on Dataflow

The same command again skips finished work. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 130 stopped by
Ctrl-C, 143 by SIGTERM. After 130 and 143 the same command goes on; training saves a checkpoint when it stops."""

_BEAM_FLAGS = "All other flags go to Beam, such as --direct_num_workers, --direct_running_mode and --region."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # argparse would print the usage as well; the line that says what is wrong should stand alone.
        raise UsageError(message)


def parse_arguments(argv: list[str]) -> Arguments:
    """Returns the parsed command line; `--help` prints and exits.

    The stage is the first argument or the value of `--stage`.

    Raises:
        UsageError: something is wrong that can be judged without Beam.
    """
    named, rest = _named_stage(argv)
    stage = find_stage(named or DEFAULT_STAGE)
    foreign = foreign_flags(stage)
    known, others = _parser(stage, foreign, general=named is None).parse_known_args(rest)
    values = vars(known)
    for flag, stages in foreign:
        if flag.key in values:
            raise UsageError(f"{flag.name} belongs to --stage {' or '.join(stages)}. Received: --stage {stage.name}")
    _refuse_what_cannot_be_beams(others, stage)
    # A stage may have a flag of its own under a shared name.
    shared = {flag.key: values[flag.key] for flag in stage.flags if flag in RUN_FLAGS}
    config = shared.get("config") or _SAMPLE_CONFIG
    if shared.get("output_root") == "":
        raise UsageError("`--output_root` should be a directory. Received: ''")
    return Arguments(
        stage=stage.name,
        config=config,
        input=tuple(shared.get("input", ())),
        output_root=shared.get("output_root", "").rstrip("/") or "/",
        run_id=_run_id(shared["run_id"], config) if RUN_ID in stage.flags else "",
        overrides=tuple(shared.get("set", ())),
        runner=shared.get("runner"),
        verbose=shared.get("verbose", False),
        json=shared.get("json"),
        beam=tuple(others),
        known_flags=tuple(own_flags()),
        own={flag.key: values[flag.key] for flag in stage.flags if flag not in RUN_FLAGS},
    )


def _named_stage(argv: list[str]) -> tuple[str | None, list[str]]:
    """Returns the stage that is named, None if none is, and the arguments without a leading name."""
    peek = _Parser(add_help=False, allow_abbrev=False)
    peek.add_argument("--stage")
    if not argv or argv[0].startswith("-"):
        stage = peek.parse_known_args(argv)[0].stage
        if stage is not None and stage not in STAGE_NAMES:
            raise UsageError(f"--stage: {_no_stage(stage)}")
        return stage, argv
    stage, *rest = argv
    if stage not in STAGE_NAMES:
        raise UsageError(f"{_no_stage(stage)}; files of the log go behind --input")
    if peek.parse_known_args(rest)[0].stage not in (None, stage):
        raise UsageError(f"the stage is named twice: {stage} and --stage {peek.parse_known_args(rest)[0].stage}")
    return stage, rest


def _no_stage(name: str) -> str:
    close = difflib.get_close_matches(name.lower().replace("-", "_"), STAGE_NAMES, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f"there is no stage {name!r}{meant} (stages: {', '.join(STAGE_NAMES)})"


def _parser(stage: Stage, foreign: list[tuple[Flag, list[str]]], general: bool) -> _Parser:
    """Returns a parser of all flags, with help for those of one stage.

    Args:
        stage: whose flags are taken.
        foreign: flags that only other stages take, so that one that is given can be told from Beam's.
        general: whether no stage was named: the help lists the stages too.
    """
    name = program_name()
    lines = []
    if general:
        width = max(map(len, STAGE_NAMES))
        stages = "\n".join(f"  {one.name:<{width}}  {one.help}" for one in all_stages())
        description = f"{_DESCRIPTION}\n\nstages:\n{stages}\n\n`{name} STAGE --help` shows the flags of a stage."
        lines.append(_EXAMPLES.format(command=typed_command()))
    else:
        description = stage.help[:1].upper() + stage.help[1:] + "."
    if RUNNER in stage.flags:
        lines.insert(0, _BEAM_FLAGS)
    # No abbreviations: `--conf` is a typing error, and `--input_file` could be Beam's one day.
    parser = _Parser(
        prog=name,
        usage=f"{name} {'[STAGE]' if general else stage.name} [FLAG ...]",
        description=description,
        epilog="\n\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    flags = parser.add_argument_group(f"flags of `{stage.name}`" + (", the stage if none is named" if general else ""))
    flags.add_argument("--help", "-h", action="help", help="show this and exit")
    flags.add_argument("--stage", metavar="STAGE", help="the same as STAGE in front" if general else argparse.SUPPRESS)
    for flag in stage.flags:
        flags.add_argument(flag.name, help=flag.help, **flag.options)
    for flag, _ in foreign:
        options: dict[str, Any] = {**flag.options, "help": argparse.SUPPRESS, "default": argparse.SUPPRESS}
        parser.add_argument(flag.name, **options)
    return parser


def _refuse_what_cannot_be_beams(others: list[str], stage: Stage) -> None:
    if not others:
        return
    if not others[0].startswith("-"):
        raise UsageError(f"unexpected argument {others[0]!r}; files of the log go behind --input")
    known = own_flags()
    for argument in others:
        name = argument.split("=", maxsplit=1)[0]
        # Beam spells its flags with underscores, so these can only be meant for us.
        if name not in known and name.lower().replace("-", "_").replace("__", "--", 1) in known:
            suggestion = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0)[0]
            raise UsageError(f"unknown flag {name}; did you mean {suggestion}?")
    if RUNNER not in stage.flags:
        close = difflib.get_close_matches(others[0], [flag.name for flag in stage.flags], n=1)
        meant = f"; did you mean {close[0]}?" if close else f"; see --stage {stage.name} --help"
        raise UsageError(f"unknown flag {others[0]}{meant}")


def _run_id(given: str | None, config: str) -> str:
    if given is None:
        return PurePosixPath(config).stem
    if not given or "/" in given or given in (".", "..") or given != given.strip():
        raise UsageError(f"`--run_id` should be the name of one directory, such as 2026-11-24. Received: {given!r}")
    return given
