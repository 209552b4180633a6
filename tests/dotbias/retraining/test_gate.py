"""Checks of the gate on numbers, by table."""

from __future__ import annotations

import pytest

from dotbias.evaluation.results import Estimate
from dotbias.retraining.config import DataConfig, FloorConfig, MarginConfig, SliceConfig
from dotbias.retraining.gate import (
    DataFigures,
    data_checks,
    failures,
    floor_checks,
    list_floor_checks,
    margin_checks,
    normalized_log_loss,
    slice_checks,
    verdict_check,
)

FIGURES = DataFigures(train_rows=1000, train_days=10, rejected=0.001, label_mean=0.4, oov={"user": 0.1})


def estimate(value: float | None, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(value=value, low=low, high=high)


@pytest.mark.parametrize(
    ("gain", "passes"),
    [
        (estimate(0.01, 0.005, 0.015), True),
        # Not better, but not worse than the margin either.
        (estimate(-0.001, -0.004, 0.002), True),
        # On the edge.
        (estimate(0.0, -0.005, 0.005), True),
        (estimate(0.0, -0.0051, 0.005), False),
        # Too few users for an interval, or rows of one class: the check fails.
        (estimate(0.01), False),
        (estimate(None), False),
        (None, False),
    ],
)
def test_margin(gain: Estimate | None, passes: bool) -> None:
    (check,) = margin_checks({"auc": gain}, MarginConfig(auc=0.005, log_loss=None, ndcg=None))
    assert check.passed == passes


def test_lists_that_cannot_be_ranked_say_nothing_against_a_challenger() -> None:
    margin = MarginConfig(auc=None, log_loss=None, ndcg=0.01)
    assert failures(margin_checks({"ndcg": estimate(None)}, margin)) == []
    assert len(failures(margin_checks({"ndcg": estimate(-0.1, -0.2, 0.0)}, margin))) == 1


@pytest.mark.parametrize(
    ("gain", "limit", "passes"),
    [
        (estimate(0.0, -0.009, 0.009), None, True),
        (estimate(0.0, -0.011, 0.011), None, False),
        (estimate(0.0, -0.011, 0.011), 0.02, True),
        # Nothing has been shown.
        (estimate(None), None, False),
        (estimate(0.1), None, False),
    ],
)
def test_without_labels_the_lists_alone_decide(gain: Estimate, limit: float | None, passes: bool) -> None:
    gains = {"auc": estimate(None), "log_loss": estimate(-1.0, -1.1, -0.9), "ndcg": gain}
    (check,) = margin_checks(gains, MarginConfig(ndcg=limit), implicit=True)
    assert (check.name, check.passed) == ("gain in ndcg", passes)


@pytest.mark.parametrize(
    ("ndcg", "floor", "passes"), [(0.1, 0.0, [True]), (0.1, 0.2, [False]), (None, 0.0, [False]), (None, None, [])]
)
def test_lists_have_a_floor(ndcg: float | None, floor: float | None, passes: list[bool]) -> None:
    assert [check.passed for check in list_floor_checks(ndcg, FloorConfig(ndcg=floor))] == passes


@pytest.mark.parametrize(
    ("auc", "log_loss", "label_mean", "failed"),
    [
        (0.8, 0.5, 0.5, []),
        (0.59, 0.5, 0.5, ["auc"]),
        # The entropy of a half is .6931.
        (0.8, 0.694, 0.5, ["normalized log loss"]),
        # Rows of one class.
        (None, 0.1, 1.0, ["auc", "normalized log loss"]),
    ],
)
def test_floors(auc: float | None, log_loss: float, label_mean: float, failed: list[str]) -> None:
    metrics = {"auc": estimate(auc), "log-loss": estimate(log_loss), "label_mean": estimate(label_mean)}
    checks = floor_checks(metrics, FloorConfig(auc=0.6, normalized_log_loss=1.0))
    assert [check.name for check in failures(checks)] == failed


def test_the_mean_label_as_prediction_has_a_normalized_log_loss_of_one() -> None:
    assert normalized_log_loss(0.5623351446188083, 0.25) == pytest.approx(1)


@pytest.mark.parametrize(
    ("gain", "passes"),
    [
        (estimate(-0.03, -0.05, -0.01), False),
        # By chance.
        (estimate(-0.03, -0.07, 0.01), True),
        # Surely worse, but within what is allowed.
        (estimate(-0.01, -0.015, -0.005), True),
        (estimate(0.01, 0.005, 0.015), True),
        (estimate(None), True),
    ],
)
def test_slices(gain: Estimate, passes: bool) -> None:
    checks = slice_checks({"new_users": gain}, SliceConfig(new_users=0.02, new_items=0.02))
    assert [check.passed for check in checks] == [passes, True]


def test_values_of_named_features_are_slices() -> None:
    lost, by_chance = estimate(-0.03, -0.05, -0.01), estimate(-0.03, -0.07, 0.01)
    gains = {"country: DE": lost, "country: FR": by_chance, "device: phone": lost}
    checks = slice_checks(gains, SliceConfig(new_users=None, new_items=None, features={"country": 0.02}))
    assert [(check.name, check.passed) for check in checks] == [
        ("gain in auc, country: DE", False),
        ("gain in auc, country: FR", True),
    ]


@pytest.mark.parametrize(
    ("changes", "psi", "failed"),
    [
        ({}, 0.01, []),
        ({"train_rows": 499}, 0.01, ["train rows, ratio"]),
        ({"train_rows": 2001}, 0.01, ["train rows, ratio"]),
        # Rows a day are compared: FIGURES has a thousand rows of ten days.
        ({"train_rows": 100, "train_days": 1}, 0.01, []),
        ({"train_rows": 1000, "train_days": 1}, 0.01, ["train rows, ratio"]),
        ({"train_rows": 1000, "train_days": 21}, 0.01, ["train rows, ratio"]),
        # A manifest of an earlier version does not say.
        ({"train_rows": 1000, "train_days": None}, 0.01, []),
        ({"rejected": 0.012}, 0.01, ["rise of the rejected share"]),
        ({"oov": {"user": 0.21}}, 0.01, ["rise of the OOV share, user"]),
        ({"label_mean": 0.29}, 0.01, ["shift of the mean label"]),
        ({}, 0.26, ["PSI, user"]),
    ],
)
def test_data(changes: dict[str, object], psi: float, failed: list[str]) -> None:
    challenger = DataFigures.model_validate({**FIGURES.model_dump(), **changes})
    checks = data_checks(FIGURES, challenger, {"user": psi}, DataConfig())
    assert [check.name for check in failures(checks)] == failed


def test_a_check_can_be_left_out() -> None:
    none = dict.fromkeys(DataConfig.model_fields)
    assert data_checks(FIGURES, FIGURES, {"user": 9.0}, DataConfig.model_validate(none)) == []


def test_reasons_not_to_ship_refuse_a_challenger() -> None:
    assert verdict_check(["worse than biases alone"], stops=False).passed
    check = verdict_check(["worse than biases alone"], stops=True)
    assert not check.passed
    assert check.note == "worse than biases alone"
