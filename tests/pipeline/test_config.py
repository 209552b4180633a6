"""Checks what a configuration may say of timestamps, missing values and names; the rest is tested where it is used."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import PipelineConfig, timestamp_of

NOON = "2026-11-01T12:00:00Z"


def config(**changes: Any) -> PipelineConfig:
    fields: dict[str, Any] = {
        "columns": {"user": "int64", "country": "string", "item": "string", "rating": "float32", "time": "string"},
        "label": {"column": "rating"},
        "features": {"user": {"side": "user"}, "item": {"side": "item"}, "country": {"side": "user"}},
        "timestamp_column": "time",
        "timestamp_unit": "iso",
    }
    return PipelineConfig.model_validate({**fields, **changes})


def test_a_missing_value_is_a_token_except_in_the_first_feature_of_each_side() -> None:
    assert {name: config().missing_is_a_token(name) for name in config().features} == {
        "user": False,
        "item": False,
        "country": True,
    }
    changed = config(
        features={
            "user": {"side": "user", "missing": "token"},
            "item": {"side": "item"},
            "country": {"side": "user", "missing": "reject"},
        }
    )
    assert [changed.missing_is_a_token(name) for name in changed.features] == [True, False, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"timestamp_unit": "s"},
            r"timestamp column 'time' is declared string: set `timestamp_unit: iso` if it has text",
        ),
        ({"timestamp_column": "user"}, r"`timestamp_unit: iso` is for text: declare timestamp column 'user' string"),
        ({"timestamp_column": "rating"}, r"should be int64, or string with `timestamp_unit: iso`. Received: float32"),
        ({"window": {"since": 1_700_000_000}}, r"`window.since` should be a date or time with `timestamp_unit: iso`"),
        ({"split": {"method": "time", "since": 5}}, r"`split.since` should be a date or time with"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


@pytest.mark.parametrize("name", ["_label", "_shard"])
def test_the_timestamp_cannot_have_a_name_that_batches_use(name: str) -> None:
    columns = {"user": "int64", "item": "string", "rating": "float32", name: "int64"}
    features = {"user": {"side": "user"}, "item": {"side": "item"}}
    with pytest.raises(ValueError, match=f"cannot be named '{name}'"):
        config(columns=columns, features=features, timestamp_column=name, timestamp_unit="s")


def test_a_feature_may_be_called_label() -> None:
    columns = {"user": "int64", "label": "string", "rating": "float32"}
    named = config(
        columns=columns,
        features={"user": {"side": "user"}, "label": {"side": "item"}},
        timestamp_column=None,
        timestamp_unit="s",
    )
    assert (named.label_name, config().label_name) == ("_label", "label")


@pytest.mark.parametrize(("unit", "moment"), [("s", 1_793_534_400), ("iso", 1_793_534_400_000_000)])
def test_a_moment_in_the_unit_of_the_shards(unit: str, moment: int) -> None:
    assert timestamp_of(config(window={"since": NOON}).window.since or 0, unit) == moment


def test_a_log_without_labels_names_no_column() -> None:
    implicit = config(label="implicit", duplicates="last", timestamp_column=None, timestamp_unit="s")
    assert implicit.label.column is None and implicit.needed_columns == ["user", "item", "country"]
    assert PipelineConfig.model_validate(implicit.model_dump(mode="json")) == implicit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"label": "implict"},
            r"should be `implicit`, where each row is positive, or have a `column`. Received: 'impl",
        ),
        ({"label": {"column": None, "threshold": 3.0}}, r"`threshold` needs a `column`: without one, each row is pos"),
        ({"duplicates": "last", "timestamp_column": None, "timestamp_unit": "s"}, r"`duplicates: last` needs a `time"),
    ],
)
def test_mistakes_in_labels(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)
