"""Checks the runner and the flags that Beam gets."""

from __future__ import annotations

import pytest
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners import create_runner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from dotbias.cli.beam.flags import beam_arguments


@pytest.mark.parametrize("runner", [None, "DirectRunner", "directrunner", "direct", "FnApiRunner"])
def test_the_local_runner_is_the_one_in_this_process(runner: str | None) -> None:
    """The local runner is not Beam's own `DirectRunner`, which tries to download another one."""
    name = PipelineOptions(beam_arguments(runner, (), "r")).view_as(StandardOptions).runner
    assert type(create_runner(name)) is FnApiRunner


@pytest.mark.parametrize(
    ("runner", "others"),
    [
        ("PortableRunner", ("--job_endpoint=localhost:1",)),
        ("apache_beam.runners.portability.flink_runner.FlinkRunner", ()),
    ],
)
def test_another_runner_is_left_alone(runner: str, others: tuple[str, ...]) -> None:
    assert beam_arguments(runner, others, "2026-11-24") == [f"--runner={runner}", *others]


def test_beams_flags_arrive() -> None:
    given = ("--direct_num_workers", "2", "--direct_running_mode=multi_processing", "--experiments=a", "--streaming")
    options = PipelineOptions(beam_arguments("DirectRunner", given, "r")).view_as(DirectOptions)
    assert (options.direct_num_workers, options.direct_running_mode) == (2, "multi_processing")
