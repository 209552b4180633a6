"""Tests the plans of runs."""

from __future__ import annotations

import datetime

import pytest

from dotbias.retraining.config import RetrainingConfig
from dotbias.retraining.runs import RunPlan, make_plan, pipeline_of, why_not_comparable
from pipeline.config import PipelineConfig

DAY = datetime.date(2026, 11, 24)
PIPELINE = PipelineConfig.model_validate(
    {
        "columns": {"user": "int64", "item": "int64", "label": "float32", "time": "int64"},
        "label": {"column": "label"},
        "features": {"user": {"side": "user"}, "item": {"side": "item"}},
        "timestamp_column": "time",
    }
)


def plan(day: datetime.date, start: str | None = None, **config: object) -> RunPlan:
    made = make_plan(day, RetrainingConfig.model_validate(config), start, [])
    return made


def test_rows_of_a_date() -> None:
    made = plan(DAY, window_days=30, eval_days=2)
    assert made.train_since == datetime.date(2026, 10, 25)
    assert made.eval_since == datetime.date(2026, 11, 22)
    assert made.until == DAY
    config = pipeline_of(made, PIPELINE, "out/counts")
    assert config.window.since == datetime.datetime(2026, 10, 25, tzinfo=datetime.timezone.utc)
    assert config.window.until == datetime.datetime(2026, 11, 24, tzinfo=datetime.timezone.utc)
    assert config.split.method == "time"
    assert config.split.since == datetime.datetime(2026, 11, 22, tzinfo=datetime.timezone.utc)


@pytest.mark.parametrize(
    ("champion", "config", "warm_runs", "start"),
    [
        (None, {}, 0, None),
        ("2026-11-23", {}, 0, "2026-11-23"),
        ("2026-11-23", {"warm_start": False}, 0, None),
        ("2026-11-23", {"cold_every": 3}, 1, "2026-11-23"),
        ("2026-11-23", {"cold_every": 3}, 2, None),
        ("2026-11-23", {"cold_every": 1}, 0, None),
    ],
)
def test_warm_or_cold(champion: str | None, config: dict[str, object], warm_runs: int, start: str | None) -> None:
    earlier = [plan(DAY)] + [plan(DAY, "x")] * warm_runs
    made = make_plan(DAY, RetrainingConfig.model_validate(config), champion, earlier)
    assert made.start == start
    assert bool(made.reason) == (start is None)


def days_before(days: int) -> datetime.date:
    return DAY - datetime.timedelta(days=days)


def incremental(champion_days_before: int = 1, **config: object) -> RunPlan:
    champion = plan(days_before(champion_days_before))
    options = RetrainingConfig.model_validate({"mode": "incremental", **config})
    return make_plan(DAY, options, champion.date.isoformat(), [champion])


@pytest.mark.parametrize(
    ("champion_days_before", "since"),
    # The day before the champion was its eval day. A champion from before the window gives the whole window.
    [(1, 2), (4, 5), (29, 30), (30, 30), (90, 30)],
)
def test_an_incremental_run_trains_on_what_came_since_the_eval_rows_of_the_champion(
    champion_days_before: int, since: int
) -> None:
    made = incremental(champion_days_before)
    assert (made.mode, made.mode_reason) == ("incremental", "")
    assert (made.train_since, made.eval_since) == (days_before(since), days_before(1))
    assert made.vocabulary_since == made.window_since == days_before(30)
    config = pipeline_of(made, PIPELINE, "out/counts")
    assert config.vocabulary_since == datetime.datetime(2026, 10, 25, tzinfo=datetime.timezone.utc)
    assert config.window.since == datetime.datetime.combine(days_before(since), datetime.time(), datetime.timezone.utc)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (make_plan(DAY, RetrainingConfig(mode="incremental"), None, []), "a cold start: there is no champion yet"),
        (make_plan(DAY, RetrainingConfig(mode="incremental"), "2026-11-23", []), "has no plan.json"),
        (incremental(cold_every=1), "a cold start: `retraining.cold_every` is 1"),
        # The champion's only eval day is one of the seven.
        (incremental(eval_days=7), "no day lies between"),
    ],
)
def test_where_nothing_can_be_added_a_run_is_a_full_one(made: RunPlan, reason: str) -> None:
    assert reason in made.mode_reason
    assert (made.mode, made.vocabulary_since) == ("full", None)
    assert made.train_since == days_before(30)
    assert pipeline_of(made, PIPELINE, "out/counts").vocabulary_since is None


def test_a_plan_of_an_earlier_version_is_a_full_one() -> None:
    fields = plan(DAY).model_dump(mode="json", exclude={"mode", "mode_reason", "vocabulary_since"})
    assert RunPlan.model_validate(fields) == plan(DAY)


@pytest.mark.parametrize(
    ("change", "directory"),
    [({}, "out/counts"), ({"counts_cache": "mine"}, "mine"), ({"duplicates": "last"}, None)],
)
def test_where_counts_are_kept(change: dict[str, str], directory: str | None) -> None:
    config = PipelineConfig.model_validate({**PIPELINE.model_dump(), **change})
    assert pipeline_of(plan(DAY), config, "out/counts").counts_cache == directory


def test_incremental_needs_a_warm_start() -> None:
    with pytest.raises(ValueError, match="needs `warm_start: true`"):
        RetrainingConfig(mode="incremental", warm_start=False)


@pytest.mark.parametrize(
    ("champion", "eval_days", "comparable"),
    [
        (datetime.date(2026, 11, 23), 1, True),
        (datetime.date(2026, 11, 23), 2, False),
        (datetime.date(2026, 11, 17), 7, True),
        (DAY, 1, False),
        (datetime.date(2026, 12, 1), 1, False),
    ],
)
def test_the_champion_must_not_have_seen_the_eval_rows(
    champion: datetime.date, eval_days: int, comparable: bool
) -> None:
    reason = why_not_comparable(plan(DAY, eval_days=eval_days), plan(champion))
    assert (reason == "") == comparable


def test_an_eval_split_as_long_as_the_window_leaves_no_train_rows() -> None:
    with pytest.raises(ValueError, match="`eval_days` should be less than `window_days` 30"):
        RetrainingConfig(eval_days=30)
