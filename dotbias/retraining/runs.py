"""Manages runs by date: paths of their files, plans, and earlier runs."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dotbias.retraining.config import RetrainingConfig
from pipeline.config import PipelineConfig
from pipeline.manifest import DotbiasError, join
from pipeline.storage.files import read_file
from pipeline.storage.trees import exists, list_directories

RUNS_DIRECTORY = "runs"
# The directory that TensorFlow Serving watches.
SERVING_DIRECTORY = "serving"
# The directory with the counts of the log's files, which all runs share.
COUNTS_DIRECTORY = "counts"
PLAN_NAME = "plan.json"
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


class RunPlan(BaseModel):
    """Holds `plan.json`: the dates of a run and the weights that it starts from, written before anything else.

    A start after an interruption reads it, so that the training has the same result as without the interruption, even
    if the champion has changed. `start` is the run whose weights the training starts from, None for a cold start, and
    `reason` says why it is cold. An incremental run trains on the rows since `train_since`, and its vocabularies count
    those since `vocabulary_since`; `mode_reason` says why a run is full although the mode is incremental.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    date: datetime.date
    train_since: datetime.date
    eval_since: datetime.date
    until: datetime.date
    start: str | None
    reason: str = ""
    mode: Literal["full", "incremental"] = "full"
    mode_reason: str = ""
    vocabulary_since: datetime.date | None = None

    @property
    def window_since(self) -> datetime.date:
        """Returns where the window of `retraining.window_days` begins."""
        return self.train_since if self.vocabulary_since is None else self.vocabulary_since

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"


class RunPaths:
    """Holds the paths of one run below an output root."""

    def __init__(self, root: str, run_id: str) -> None:
        self.run = join(root, RUNS_DIRECTORY, run_id)
        self.plan = join(self.run, PLAN_NAME)
        self.dataset = join(self.run, "dataset")
        self.model = join(self.run, "model")
        self.decision = join(self.run, "decision.json")
        self.seconds = join(self.run, "seconds.json")
        self.report = join(self.run, "report.html")


def dated_runs(root: str) -> list[str]:
    """Returns the names of the runs that a date names, the oldest first."""
    return [name for name in list_directories(join(root, RUNS_DIRECTORY)) if _DATE.fullmatch(name)]


def published_versions(root: str) -> list[int]:
    """Returns the versions in `serving/`, the lowest first."""
    return sorted(int(name) for name in list_directories(join(root, SERVING_DIRECTORY)) if name.isdecimal())


def read_plan(paths: RunPaths) -> RunPlan | None:
    """Returns the plan of a run, None if there is none.

    Raises:
        DotbiasError: this version cannot read it.
    """
    if not exists(paths.plan):
        return None
    try:
        return RunPlan.model_validate_json(read_file(paths.plan))
    except ValidationError as error:
        raise DotbiasError(f"{paths.plan} cannot be read: {error.errors()[0]['msg']}. Delete the run.") from None


def make_plan(
    day: datetime.date, config: RetrainingConfig, champion: str | None, earlier: Sequence[RunPlan]
) -> RunPlan:
    """Plans the run of a date.

    Args:
        day: the date; rows before its midnight, in UTC, are used.
        config: the section `retraining`.
        champion: the run that serves.
        earlier: plans of the runs of earlier dates, the oldest first.
    """
    reason = ""
    if champion is None:
        reason = "there is no champion yet"
    elif not config.warm_start:
        reason = "`retraining.warm_start` is false"
    elif config.cold_every is not None and _warm_in_a_row(earlier) >= config.cold_every - 1:
        reason = f"`retraining.cold_every` is {config.cold_every}"
    full = RunPlan(
        date=day,
        train_since=day - datetime.timedelta(days=config.window_days),
        eval_since=day - datetime.timedelta(days=config.eval_days),
        until=day,
        start=None if reason else champion,
        reason=reason,
    )
    return full if config.mode == "full" else _incremental(full, earlier)


def _incremental(full: RunPlan, earlier: Sequence[RunPlan]) -> RunPlan:
    """Returns the plan of a run that trains on the rows since the champion's eval rows, if that is possible."""
    if full.start is None:
        return full.model_copy(update={"mode_reason": f"a cold start: {full.reason}"})
    champion = next((plan for plan in earlier if plan.date.isoformat() == full.start), None)
    if champion is None:
        return full.model_copy(update={"mode_reason": f"the champion {full.start} has no {PLAN_NAME}"})
    since = max(champion.eval_since, full.train_since)
    if since >= full.eval_since:
        return full.model_copy(update={"mode_reason": f"no day lies between the eval rows and those of {full.start}"})
    return full.model_copy(
        update={"mode": "incremental", "train_since": since, "vocabulary_since": full.train_since},
    )


def pipeline_of(plan: RunPlan, config: PipelineConfig, counts: str) -> PipelineConfig:
    """Returns the pipeline's configuration with the window and the split of a plan.

    Args:
        plan: of the run.
        config: the section `pipeline`.
        counts: the directory for the counts of the log's files, unless `config` names one or they cannot be kept.
    """
    values = config.model_dump()
    values["window"] = {"since": midnight(plan.train_since), "until": midnight(plan.until)}
    values["split"] = {"method": "time", "since": midnight(plan.eval_since)}
    values["vocabulary_since"] = None
    made = PipelineConfig.model_validate(values)
    if config.counts_cache is None and not made.why_not_counted_by_file():
        values["counts_cache"] = counts
    if plan.vocabulary_since is not None:
        values["vocabulary_since"] = midnight(plan.vocabulary_since)
    return PipelineConfig.model_validate(values)


def why_not_comparable(plan: RunPlan, champion: RunPlan) -> str:
    """Returns why the champion may have seen the eval rows of a plan; empty if it cannot have."""
    if champion.until <= plan.eval_since:
        return ""
    return (
        f"{champion.date} was trained on rows before {champion.until}, and the eval rows of {plan.date} begin on "
        f"{plan.eval_since}: it may have seen them"
    )


def midnight(day: datetime.date) -> datetime.datetime:
    """Returns the moment at which a date begins, in UTC."""
    return datetime.datetime.combine(day, datetime.time(), datetime.timezone.utc)


def _warm_in_a_row(plans: Sequence[RunPlan]) -> int:
    count = 0
    for plan in reversed(plans):
        if plan.start is None:
            break
        count += 1
    return count
