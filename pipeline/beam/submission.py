"""Describes jobs that have not ended when Beam returns: submitted, written as a template, or only checked."""

from __future__ import annotations

from dataclasses import dataclass

from apache_beam.options.pipeline_options import (
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
    TestOptions,
)
from apache_beam.runners.runner import PipelineResult


@dataclass(frozen=True)
class Submission:
    """Names a job. `job_id` is Dataflow's; None if another service runs the job or nothing runs yet."""

    job_id: str | None


def is_dry_run(options: PipelineOptions) -> bool:
    """Returns whether Beam only checks the job."""
    return bool(options.view_as(TestOptions).dry_run)


def runs_in_process(options: PipelineOptions) -> bool:
    """Returns whether the job ends with this process; a service goes on with it."""
    return (options.view_as(StandardOptions).runner or "").endswith("FnApiRunner")


def runs_in_one_thread(options: PipelineOptions) -> bool:
    """Returns whether the thread that starts the job calls all of its steps, each once for an element."""
    direct = options.view_as(DirectOptions)
    return (
        runs_in_process(options)
        and direct.direct_running_mode == "in_memory"
        and not direct.direct_runner_bundle_repeat
    )


def ends_with_the_job(options: PipelineOptions) -> bool:
    """Returns whether the dataset is complete when Beam returns. A Flex Template's launcher must not wait for that."""
    return not (
        is_dry_run(options)
        or options.view_as(StandardOptions).no_wait_until_finish
        or options.view_as(GoogleCloudOptions).template_location
    )


def submission(result: PipelineResult) -> Submission:
    """Describes the job of a result."""
    return Submission(result.job_id() if getattr(result, "has_job", False) else None)
