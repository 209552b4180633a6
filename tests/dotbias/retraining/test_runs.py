"""Plans of runs."""

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
    config = pipeline_of(made, PIPELINE)
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
