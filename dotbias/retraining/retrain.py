"""Runs one night: preprocess, train, compare with the champion, decide, publish. Finished steps are skipped."""

from __future__ import annotations

import datetime
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from dotbias.evaluation.evaluate import evaluate
from dotbias.evaluation.report.run_page import write_run_page
from dotbias.evaluation.request import EvaluationRequest
from dotbias.retraining.champion import ROLLBACK, Champion, Throne, locked_serving, successor
from dotbias.retraining.config import RetrainingConfig
from dotbias.retraining.decision import Decision
from dotbias.retraining.drift import data_figures
from dotbias.retraining.gate import failures
from dotbias.retraining.history import History, read_history
from dotbias.retraining.history_page import write_history
from dotbias.retraining.judge import Judgement, has_export, judge, missing_features
from dotbias.retraining.retention import delete, plan_deletions
from dotbias.retraining.runs import (
    COUNTS_DIRECTORY,
    SERVING_DIRECTORY,
    RunPaths,
    RunPlan,
    dated_runs,
    make_plan,
    pipeline_of,
    published_versions,
    read_plan,
    why_not_comparable,
)
from dotbias.retraining.serving import next_version, publish, read_origin
from pipeline.beam.submission import Submission
from pipeline.config import InputConfig, PipelineConfig
from pipeline.manifest import MANIFEST_NAME, DatasetManifest, DotbiasError, Progress, join, read_manifest
from pipeline.output.attempts import ATTEMPTS_DIRECTORY, delete_leftovers
from pipeline.output.existing import existing_manifest
from pipeline.preprocess import preprocess
from pipeline.storage.files import delete_tree, open_file, read_file, write_file
from pipeline.storage.trees import exists, list_directories
from trainer.config import TrainerConfig
from trainer.loop.warm_start import WarmStart
from trainer.train import train

_log = logging.getLogger("trainer.train")


@dataclass(frozen=True)
class Night:
    """Describes a night: where it writes, its date, and the sections of the configuration."""

    root: str
    day: datetime.date
    pipeline: PipelineConfig
    trainer: TrainerConfig
    retraining: RetrainingConfig

    @property
    def run_id(self) -> str:
        return self.day.isoformat()

    @property
    def paths(self) -> RunPaths:
        return RunPaths(self.root, self.run_id)


def retrain(night: Night, beam_arguments: list[str], progress: Progress) -> tuple[Decision, History]:
    """Makes the run of a date, decides whether it becomes champion, and publishes it if it does.

    After an interruption, the same call goes on from there, with the same result; a date with a decision returns it.
    The history has all nights and the warnings for a monitor.

    Raises:
        DotbiasError: a step failed for a reason that its message gives.
    """
    paths, throne = night.paths, Throne(night.root)
    if not exists(paths.decision):
        plan = _plan(night, throne.read()[0])
        manifest, metrics = _make_model(night, plan, beam_arguments, progress)
        decision = None
        while decision is None:
            champion, _ = throne.read()
            with _timed(paths, "judge"):
                judgement = _judge(night, plan, champion, manifest, progress)
            started = metrics.get("warm_start") or {"cold": plan.reason}
            decision = _decide(night, throne, judgement, manifest, started)
        write_file(paths.decision, decision.to_json().encode(), paths.run)
    history = _clean_up(night)
    return Decision.from_json(read_file(paths.decision), paths.decision), history


def reference_run(root: str, champion: Champion | None, day: datetime.date) -> str | None:
    """Returns the run that a run of `day` is compared with and starts from; None if there is none.

    That is the champion. If a start that was killed has made the run itself champion, it is the predecessor. If the
    champion is of a later date, it is the last run before `day` that became champion: a backfill must not be compared
    with a model that knows its eval rows.
    """
    if champion is None:
        return None
    if champion.run_id < day.isoformat():
        return champion.run_id
    if champion.run_id == day.isoformat() and champion.decided_by != ROLLBACK:
        return None if champion.previous is None else champion.previous.run_id
    for name in reversed(dated_runs(root)):
        decision = RunPaths(root, name).decision
        if name < day.isoformat() and exists(decision) and _was_promoted(decision):
            return name
    return None


def _was_promoted(path: str) -> bool:
    return Decision.from_json(read_file(path), path).outcome == "promoted"


def _plan(night: Night, champion: Champion | None) -> RunPlan:
    """Reads the plan of an earlier start, or makes one and writes it."""
    plan = read_plan(night.paths)
    if plan is not None:
        since = night.day - datetime.timedelta(days=night.retraining.window_days)
        eval_since = night.day - datetime.timedelta(days=night.retraining.eval_days)
        if (plan.window_since, plan.eval_since) != (since, eval_since):
            raise DotbiasError(
                f"{night.paths.run} was begun with a window since {plan.window_since} and eval rows since "
                f"{plan.eval_since}; `retraining` now gives {since} and {eval_since}. Restore the values, or delete "
                "the run to make it again."
            )
        return plan
    earlier = [read_plan(RunPaths(night.root, name)) for name in dated_runs(night.root) if name < night.run_id]
    start = reference_run(night.root, champion, night.day)
    plan = make_plan(night.day, night.retraining, start, [plan for plan in earlier if plan is not None])
    write_file(night.paths.plan, plan.to_json().encode(), night.paths.run)
    return plan


def preprocess_night(night: Night, beam_arguments: list[str], progress: Progress) -> Submission | None:
    """Makes the dataset of a night and stops there; returns the submitted job if Beam is told not to wait for it."""
    plan = _plan(night, Throne(night.root).read()[0])
    made = _preprocess(night, plan, beam_arguments, progress)
    return None if isinstance(made, DatasetManifest) else made


def _preprocess(
    night: Night, plan: RunPlan, beam_arguments: list[str], progress: Progress
) -> DatasetManifest | Submission:
    """Makes the dataset, unless it is complete.

    A complete dataset is not compared with the input, since the log may have grown since the night began.
    """
    paths, config = night.paths, pipeline_of(plan, night.pipeline, join(night.root, COUNTS_DIRECTORY))
    if exists(join(paths.dataset, MANIFEST_NAME)):
        known = read_manifest(paths.dataset, open_file)
        finished = existing_manifest(paths.dataset, config, known.input)
        assert finished is not None
        # A start that was killed after it had published the dataset.
        delete_leftovers(join(paths.dataset, ATTEMPTS_DIRECTORY))
        return finished
    with _timed(paths, "preprocess"):
        return preprocess(paths.dataset, config, beam_arguments, progress)


def _make_model(
    night: Night, plan: RunPlan, beam_arguments: list[str], progress: Progress
) -> tuple[DatasetManifest, dict[str, Any]]:
    """Preprocesses and trains; returns the manifest and the training's metrics."""
    paths = night.paths
    made = _preprocess(night, plan, beam_arguments, progress)
    if not isinstance(made, DatasetManifest):
        raise DotbiasError("A night needs the dataset, and Beam is told not to wait for it; add --only preprocess.")
    for split, (since, until) in {
        "train": (plan.train_since, plan.eval_since),
        "eval": (plan.eval_since, plan.until),
    }.items():
        if not made.splits[split].rows:
            raise DotbiasError(
                f"The log has no {split} rows for {plan.date}, none from {since} until {until} (UTC). Check --input "
                f"and `pipeline.timestamp_unit`; delete {paths.run} and retrain when the rows are there."
            )
    start = None
    if plan.start is not None:
        champion = RunPaths(night.root, plan.start)
        start = WarmStart(dataset=champion.dataset, model_dir=champion.model)
    with _timed(paths, "train"):
        metrics = train(paths.dataset, paths.model, night.trainer, progress, start)
    return made, metrics


def _judge(
    night: Night, plan: RunPlan, champion: Champion | None, manifest: DatasetManifest, progress: Progress
) -> Judgement:
    """Evaluates the challenger, and compares it with the champion or, in a backfill, with the one of that time."""
    evaluation = evaluate(EvaluationRequest(night.paths.run, "eval", InputConfig()), progress).evaluation
    write_run_page(night.paths.report, night.paths.run, evaluation.subject.export, evaluation, {})
    against = reference_run(night.root, champion, night.day)
    reason = "" if against is None else _why_not_compared(night, plan, champion, against, manifest)
    judgement = judge(
        night.paths,
        manifest,
        evaluation,
        None if against is None or reason else RunPaths(night.root, against),
        night.retraining.gate,
        progress,
    )
    return replace(judgement, against=against, reasons=[reason] if reason else [])


def _why_not_compared(
    night: Night, plan: RunPlan, champion: Champion | None, against: str, manifest: DatasetManifest
) -> str:
    """Returns why nothing can be said about a run beside the one that it has to beat; empty if something can."""
    for run_id in dict.fromkeys([against, *([plan.start] if plan.start else [])]):
        paths = RunPaths(night.root, run_id)
        seen = read_plan(paths)
        if seen is None:
            raise DotbiasError(
                f"{paths.plan} is missing, so it is not known which rows {run_id} has seen. Restore it, or make "
                "another run the champion with --stage rollback --run_id."
            )
        if reason := why_not_comparable(plan, seen):
            return reason
    if missing := missing_features(read_manifest(RunPaths(night.root, against).dataset, open_file), manifest):
        return (
            f"{against} takes {', '.join(missing)}, which the night does not have: it cannot be asked. Restore the "
            "features, or delete champion.json to begin anew"
        )
    if champion is not None and champion.run_id > night.run_id and not has_export(RunPaths(night.root, against)):
        return f"{against}, which was champion before {night.run_id}, has no model any more (`retraining.keep.exports`)"
    return ""


def _decide(
    night: Night, throne: Throne, judgement: Judgement, manifest: DatasetManifest, warm_start: dict[str, Any]
) -> Decision | None:
    """Publishes the run if it passed and nothing newer serves; returns the decision, which is not written yet.

    Returns None if the champion has changed since the comparison, which has to be made again.

    Raises:
        DotbiasError: the run serves already, and does not pass what it passed then.
    """
    reasons = list(judgement.reasons)
    failed = failures(judgement.checks)
    if failed:
        reasons.append(f"failed: {', '.join(check.name for check in failed)}")
    with locked_serving(night.root):
        champion, seen = throne.read()
        serves = None if champion is None else champion.run_id
        version = None
        if champion is not None and serves == night.run_id:
            if reasons:
                raise DotbiasError(
                    f"{serves} is the champion already, and would be kept back now ({'; '.join(reasons)}). Put a "
                    "former champion back with --stage rollback, and start the same command again; or restore the "
                    "limits."
                )
            # An earlier start, or one at the same time, has done it.
            version = champion.version
        elif champion is not None and champion.run_id > night.run_id:
            reasons.append(f"the champion {serves} is newer")
        elif champion is not None and champion.pinned:
            reasons.append(f"the champion {serves} is pinned")
        elif serves != judgement.against:
            _log.warning("The champion changed from %s to %s: comparing again.", judgement.against, serves)
            return None
        elif not reasons:
            version = next_version(night.day, champion)
            publish(night.root, night.run_id, version)
            decided_by = f"runs/{night.run_id}/decision.json"
            if not throne.replace(seen, successor(champion, night.run_id, version, decided_by)):
                return None
    return Decision(
        run_id=night.run_id,
        date=night.day,
        outcome="promoted" if version is not None else "kept",
        reasons=reasons,
        champion=judgement.against,
        version=version,
        train_rows=manifest.splits["train"].rows,
        eval_rows=manifest.splits["eval"].rows,
        oov=data_figures(manifest).oov,
        checks=judgement.checks,
        challenger_metrics=judgement.challenger,
        champion_metrics=judgement.champion,
        gains=judgement.gains,
        refit_gains=judgement.refit_gains,
        warm_start=warm_start,
    )


def _clean_up(night: Night) -> History:
    """Deletes what old runs no longer need, and writes the page of the history."""
    try:
        # A rollback at the same time would need what is deleted here.
        with locked_serving(night.root):
            _delete_old(night, Throne(night.root).read()[0])
    except DotbiasError as error:
        _log.warning("Old models stay: %s", error)
    history = read_history(night.root, Throne(night.root).read()[0], night.retraining.warn_after)
    write_history(night.root, history)
    return history


def _delete_old(night: Night, champion: Champion | None) -> None:
    if champion is None:
        return
    for name in list_directories(join(night.root, SERVING_DIRECTORY)):
        if name.endswith(".partial"):
            delete_tree(join(night.root, SERVING_DIRECTORY, name))
    serving = [champion, *([champion.previous] if champion.previous else [])]
    versions: dict[int, str | None] = {}
    for version in published_versions(night.root):
        if version not in {run.version for run in serving}:
            origin = read_origin(night.root, version)
            versions[version] = None if origin is None else origin["run_id"]
    runs = [name for name in dated_runs(night.root) if exists(RunPaths(night.root, name).decision)]
    needed = {run.run_id for run in serving}
    delete(night.root, plan_deletions(runs, needed, versions, champion.version, night.retraining.keep))


@contextmanager
def _timed(paths: RunPaths, stage: str) -> Iterator[None]:
    """Adds the seconds of a stage to those of earlier starts."""
    began = time.monotonic()
    try:
        yield
    finally:
        seconds = json.loads(read_file(paths.seconds)) if exists(paths.seconds) else {}
        seconds[stage] = round(seconds.get(stage, 0) + time.monotonic() - began, 2)
        write_file(paths.seconds, (json.dumps(seconds) + "\n").encode(), paths.run)
