"""Jobs that are not finished when Beam returns: they are only submitted, described for later, or checked."""

from __future__ import annotations

from dataclasses import dataclass

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, StandardOptions, TestOptions
from apache_beam.runners.runner import PipelineResult


@dataclass(frozen=True)
class Submission:
    """`job_id` is Dataflow's; None if another service runs the job, or none does yet."""

    job_id: str | None


def is_dry_run(options: PipelineOptions) -> bool:
    return bool(options.view_as(TestOptions).dry_run)


def ends_with_the_job(options: PipelineOptions) -> bool:
    """Whether Beam returns when the dataset is complete. A Flex Template's launcher must not wait for it."""
    return not (
        is_dry_run(options)
        or options.view_as(StandardOptions).no_wait_until_finish
        or options.view_as(GoogleCloudOptions).template_location
    )


def submission(result: PipelineResult) -> Submission:
    return Submission(result.job_id() if getattr(result, "has_job", False) else None)
