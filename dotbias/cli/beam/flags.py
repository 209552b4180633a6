"""Chooses the runner of the Beam job, and checks that Beam knows the flags that Dotbias does not know."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from dotbias.cli.beam.dataflow import check_dataflow, dataflow_defaults, is_dataflow
from dotbias.cli.configuration.load import Configuration
from dotbias.cli.configuration.validation_errors import known_paths
from dotbias.cli.failures import UsageError

# Beam's `DirectRunner` first tries to download another runner (Prism); users mean this one.
_IN_PROCESS_RUNNER = "FnApiRunner"
_NAMES_OF_THE_IN_PROCESS_RUNNER = {"direct", "directrunner", "inprocessrunner", "fnapi", "fnapirunner"}


def beam_arguments(runner: str | None, others: tuple[str, ...], run_id: str, own: Sequence[str] = ()) -> list[str]:
    """Returns the command line for Beam's `PipelineOptions`.

    Args:
        runner: the value of `--runner`; None and all names of the local runner mean the one in this process.
        others: the flags that Dotbias does not know.
        run_id: becomes the name of a job that runs elsewhere.
        own: the names of the flags of Dotbias, to suggest one of them for an unknown flag.

    Raises:
        UsageError: Beam does not know a flag or the runner, or cannot read a value.

    Imports Beam only if there is a flag or a runner to check.
    """
    if runner is None or runner.lower() in _NAMES_OF_THE_IN_PROCESS_RUNNER:
        runner = _IN_PROCESS_RUNNER
    else:
        _check_runner(runner)
    values = _check_flags(list(others), own) if others else {}
    if runner == _IN_PROCESS_RUNNER:
        _refuse_what_is_for_elsewhere(values)
    if is_dataflow(runner):
        check_dataflow(values)
        return [f"--runner={runner}", *others, *dataflow_defaults(values, run_id)]
    return [f"--runner={runner}", *others]


def _refuse_what_is_for_elsewhere(values: Mapping[str, Any]) -> None:
    for name in ("dry_run", "no_wait_until_finish"):
        if values.get(name):
            raise UsageError(f"--{name} is for jobs that run elsewhere; add --runner")


def runs_by_default(arguments: list[str]) -> bool:
    """Returns whether the job runs in this process, without further flags; Beam is not imported for that."""
    return arguments == [f"--runner={_IN_PROCESS_RUNNER}"]


def ends_with_the_job(arguments: list[str]) -> bool:
    """Returns whether the call returns when the job has ended; see `pipeline.beam.submission`."""
    from apache_beam.options.pipeline_options import PipelineOptions

    from pipeline.beam.submission import ends_with_the_job

    return ends_with_the_job(PipelineOptions(arguments))


def _check_runner(runner: str) -> None:
    from apache_beam.options.pipeline_options import StandardOptions
    from apache_beam.runners import create_runner

    known = StandardOptions.KNOWN_RUNNER_NAMES
    if "." in runner:
        try:
            create_runner(runner)
        except (ImportError, AttributeError) as error:
            raise UsageError(f"runner {runner!r} cannot be imported: {error}") from None
    elif not {runner.lower(), runner.lower() + "runner"} & {name.lower() for name in known}:
        raise UsageError(f"unknown runner {runner!r}{_did_you_mean(runner, known)}")


def _check_flags(others: list[str], own: Sequence[str]) -> dict[str, Any]:
    """Returns the values of all options of Beam by name."""
    from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser

    class Parser(_BeamArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise UsageError(message)

    parser: argparse.ArgumentParser = Parser(allow_abbrev=False, add_help=False)
    # Beam does the same: each class of options adds its flags.
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)
    values, unknown = parser.parse_known_args(others)
    if unknown:
        beams = [flag for action in parser._actions for flag in action.option_strings]
        raise UsageError(_about_unknown(unknown, [*own, *beams]))
    return vars(values)


def _about_unknown(unknown: list[str], known: list[str]) -> str:
    flags = [argument.split("=", maxsplit=1)[0] for argument in unknown if argument.startswith("-")]
    if not flags:
        return f"unexpected argument {unknown[0]!r}"
    keys = [".".join(path) for path in known_paths(Configuration) if path[-1] == flags[0].lstrip("-")]
    if keys:
        return f"unknown flag {flags[0]}; it is a key of the configuration: --set {keys[0]}=..."
    return f"unknown flag {flags[0]}{_did_you_mean(flags[0], known)}"


def _did_you_mean(name: str, known: list[str]) -> str:
    by_spelling = {_spelling(word): word for word in known}
    close = difflib.get_close_matches(_spelling(name), by_spelling, n=1)
    return f"; did you mean {by_spelling[close[0]]}?" if close else "; not a flag of Dotbias or Beam"


def _spelling(name: str) -> str:
    return name.lower().replace("-", "_").strip("_")
