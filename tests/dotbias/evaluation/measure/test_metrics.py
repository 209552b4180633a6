"""Compares metrics with scikit-learn, and checks the edge cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from dotbias.evaluation.measure.metrics import (
    accuracy,
    all_metrics,
    auc,
    brier,
    calibration_table,
    expected_calibration_error,
    log_loss,
    log_losses,
    pr_auc,
    pr_curve,
    roc_curve,
)

RNG = np.random.default_rng(5)
# Rounded, so that there are ties.
PROBABILITY = np.round(RNG.random(5000), 2).astype(np.float32)
POSITIVE = RNG.random(5000) < PROBABILITY**2


def test_against_scikit_learn() -> None:
    p = PROBABILITY.clip(0.001, 0.999)
    assert auc(p, POSITIVE) == pytest.approx(sklearn.metrics.roc_auc_score(POSITIVE, p))
    assert pr_auc(p, POSITIVE) == pytest.approx(sklearn.metrics.average_precision_score(POSITIVE, p))
    assert log_loss(p, POSITIVE) == pytest.approx(sklearn.metrics.log_loss(POSITIVE, p), rel=1e-5)
    assert brier(p, POSITIVE) == pytest.approx(sklearn.metrics.brier_score_loss(POSITIVE, p), rel=1e-5)
    assert accuracy(p, POSITIVE) == pytest.approx(sklearn.metrics.accuracy_score(POSITIVE, p >= 0.5))


def test_certainty_that_is_wrong_costs_much_and_not_infinitely() -> None:
    losses = log_losses(np.array([0.0, 1.0, 0.0, 1.0], np.float32), np.array([True, False, False, True]))
    np.testing.assert_allclose(losses, [-math.log(1e-7)] * 2 + [0, 0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("positive", [np.zeros(4, bool), np.ones(4, bool), np.zeros(0, bool)])
def test_rows_of_one_class_have_no_auc(positive: np.ndarray) -> None:
    metrics = all_metrics(np.linspace(0.1, 0.9, len(positive)).astype(np.float32), positive)
    assert math.isnan(metrics["auc"])
    assert math.isnan(metrics["log-loss"]) == (len(positive) == 0)
    assert roc_curve(np.full(len(positive), 0.5), positive).x == []


def test_a_perfect_probability_is_calibrated() -> None:
    p = RNG.random(200_000)
    table = calibration_table(p, RNG.random(200_000) < p)
    assert [part.rows for part in table] == [20_000] * 10
    assert all(abs(part.prediction_mean - part.label_mean) < 0.015 for part in table)
    # About (bins / rows)^0.5 / 3.
    assert expected_calibration_error(table) == pytest.approx(math.sqrt(10 / 200_000) / 3, rel=0.5)


def test_calibration_by_hand() -> None:
    p = np.repeat([0.2, 0.8], [6, 4])
    positive = np.array([1, 0, 0, 0, 0, 0, 1, 1, 0, 0], bool)
    table = calibration_table(p, positive)
    assert [(part.rows, part.low, part.label_mean) for part in table] == [(6, 0.2, 1 / 6), (4, 0.8, 0.5)]
    assert expected_calibration_error(table) == pytest.approx(0.6 * (0.2 - 1 / 6) + 0.4 * 0.3)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.5000001, 1.0]), min_size=1, max_size=40))
def test_every_row_is_in_one_bin(values: list[float]) -> None:
    p = np.array(values)
    table = calibration_table(p, p > 0.3)
    assert sum(part.rows for part in table) == len(p)
    assert all(below.high < above.low for below, above in itertools.pairwise(table))


def test_curves_go_from_end_to_end_and_keep_their_areas() -> None:
    roc = roc_curve(PROBABILITY, POSITIVE)
    assert len(roc.x) == len(roc.y) <= 200
    assert (roc.x[0], roc.y[0], roc.x[-1], roc.y[-1]) == (0, 0, 1, 1)
    assert sklearn.metrics.auc(roc.x, roc.y) == pytest.approx(auc(PROBABILITY, POSITIVE), abs=1e-3)
    pr = pr_curve(PROBABILITY, POSITIVE)
    assert pr.x == sorted(pr.x)
    assert (pr.x[-1], pr.y[-1]) == (1, pytest.approx(POSITIVE.mean()))


def test_a_curve_of_many_points_is_thinned() -> None:
    p = RNG.random(20_000)
    roc = roc_curve(p, RNG.random(20_000) < p)
    assert 100 < len(roc.x) <= 200
