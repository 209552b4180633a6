"""Checks everything that can be checked before a stage begins."""

from __future__ import annotations

from dataclasses import dataclass

from dotbias.cli.beam.dataflow import check_places, is_dataflow
from dotbias.cli.beam.flags import beam_arguments, ends_with_the_job
from dotbias.cli.configuration.load import Configuration, load_configuration
from dotbias.cli.console.logs import set_up_logs
from dotbias.cli.failures import UsageError
from dotbias.cli.stage import Arguments
from pipeline.manifest import DotbiasError, join
from pipeline.storage.matching import match_input
from pipeline.storage.paths import InputError, is_remote
from trainer.devices.cluster import num_workers, worker_index


@dataclass(frozen=True)
class Prepared:
    """Holds what a stage needs: the checked configuration, the flags of the Beam job, and the run's directories."""

    configuration: Configuration
    for_beam: list[str]
    run: str

    @property
    def dataset(self) -> str:
        return join(self.run, "dataset")

    @property
    def model(self) -> str:
        return join(self.run, "model")

    @property
    def generates(self) -> bool:
        """Returns whether the log is the sample, which the command generates."""
        return generates(self.configuration)


def prepare(arguments: Arguments, *, reads_log: bool, trains: bool = False) -> Prepared:
    """Loads and checks the configuration, the flags for Beam and, for a stage that reads it, the log.

    Args:
        arguments: the command line.
        reads_log: whether the stage runs the Beam job or looks at the log.
        trains: whether the stage trains on the dataset of the Beam job, so that it has to wait for the job.

    Raises:
        UsageError: a flag, the configuration or the log is wrong.
    """
    configuration = load_configuration(arguments.config, arguments.overrides, arguments.input)
    # Before Beam is imported to check a flag: native libraries read the environment once.
    set_up_logs(arguments.verbose)
    patterns = configuration.pipeline.input.patterns
    checks = reads_log and not generates(configuration) and configuration.pipeline.input.format != "bigquery"
    remote = any(map(is_remote, patterns))
    if checks and not remote:
        check_input(configuration)
    for_beam = beam_arguments(arguments.runner, arguments.beam, arguments.run_id, arguments.known_flags)
    if reads_log and arguments.runner is not None and is_dataflow(arguments.runner):
        check_places(arguments.output_root, patterns)
    if trains and arguments.beam and not ends_with_the_job(for_beam):
        raise UsageError("these flags return before preprocessing ends; use --stage preprocess")
    if checks and remote:
        # After the flags, since this asks the network.
        check_input(configuration)
    return Prepared(configuration, for_beam, join(arguments.output_root, "runs", arguments.run_id))


def generates(configuration: Configuration) -> bool:
    given = configuration.pipeline.input
    return configuration.sample is not None and not given.patterns and given.format != "bigquery"


def check_input(configuration: Configuration) -> None:
    """Raises `UsageError` if a pattern matches no file, or the first rows do not fit the configuration.

    A file that vanishes later is a failure of the job.
    """
    # Parsing rows takes PyArrow, which --help should not wait for.
    from pipeline.input.mistakes import check_first_rows

    try:
        check_first_rows(configuration.pipeline, match_input(configuration.pipeline.input.patterns))
    except InputError as error:
        raise UsageError(str(error)) from None


def check_workers(stage: str, *, one_process: bool) -> None:
    """Raises `UsageError` if `TF_CONFIG` is wrong, or names several workers for a stage that one process must do.

    Several workers train one model together. In another stage, each of them would do the same work into the same files.
    """
    try:
        several = num_workers() > 1
    except DotbiasError as error:
        raise UsageError(str(error)) from None
    if several and one_process:
        raise UsageError(
            f"--stage {stage} runs in one process, but TF_CONFIG names {num_workers()} workers; start it once, without "
            "TF_CONFIG"
        )


def is_chief() -> bool:
    """Returns whether this is the worker that exports the model and reports on it."""
    return worker_index() == 0
