from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from trainer.model.calibration import IDENTITY, LogisticMap, fit_logistic_map, fit_value_map, log_loss


def rows(number: int, scale: float, offset: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draws logits, and classes from the map."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.4, 1.3, number).astype(np.float32)
    return logits, rng.random(number) < 1 / (1 + np.exp(-(scale * logits + offset)))


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (2.5, -1.0), (0.1, 3.0), (8.0, 0.5)])
def test_the_map_that_drew_the_classes_is_found(scale: float, offset: float) -> None:
    fitted = fit_logistic_map(*rows(200_000, scale, offset))
    assert fitted.scale == pytest.approx(scale, rel=0.05, abs=0.03)
    assert fitted.offset == pytest.approx(offset, rel=0.05, abs=0.05)


def test_it_equals_a_logistic_regression_where_the_smoothing_weighs_nothing() -> None:
    logits, positive = rows(50_000, 1.7, -0.3)
    reference = LogisticRegression(C=1e12, tol=1e-10).fit(logits[:, np.newaxis], positive)
    fitted = fit_logistic_map(logits, positive)
    assert fitted.scale == pytest.approx(float(reference.coef_[0, 0]), rel=1e-3)
    assert fitted.offset == pytest.approx(float(reference.intercept_[0]), abs=1e-3)


@pytest.mark.parametrize(("scale", "offset"), [(1.3, -0.2), (0.6, 0.5)])
def test_the_map_that_blurred_values_are_drawn_from_is_found(scale: float, offset: float) -> None:
    logits, _ = rows(100_000, 1.0, 0.0)
    mean = 1 / (1 + np.exp(-(scale * logits + offset)))
    labels = np.random.default_rng(1).beta(4 * mean, 4 * (1 - mean)).astype(np.float32)
    fitted = fit_value_map(logits, labels)
    assert fitted.scale == pytest.approx(scale, rel=0.02)
    assert fitted.offset == pytest.approx(offset, abs=0.02)


@pytest.mark.parametrize("labels", [[], [0.7], [0.7, 0.7], [0.0, 0.0], [1.0, 1.0]])
def test_values_that_are_all_the_same_have_no_map(labels: list[float], caplog: pytest.LogCaptureFixture) -> None:
    logits = np.linspace(-1, 1, len(labels), dtype=np.float32)
    with caplog.at_level(logging.WARNING):
        assert fit_value_map(logits, np.array(labels, np.float32)) == IDENTITY
    assert "no two labels that differ" in caplog.text


@pytest.mark.parametrize("number", [1, 5, 1000])
def test_classes_that_a_logit_separates_give_platts_targets(number: int) -> None:
    logits = np.repeat(np.float32([-1, 1]), number)
    fitted = fit_logistic_map(logits, logits > 0)
    np.testing.assert_allclose(
        fitted.apply(np.float32([-1, 1])), [1 / (number + 2), (number + 1) / (number + 2)], rtol=1e-4
    )


@pytest.mark.parametrize(
    ("logits", "positive", "reason"),
    [
        ([], [], "both classes"),
        ([0.3, 0.1], [True, True], "both classes"),
        ([0.3, 0.1], [False, False], "both classes"),
        ([0.2, 0.2, 0.2], [True, False, False], "all the same"),
        ([-1.0, 1.0], [True, False], "lower logits"),
    ],
)
def test_where_nothing_can_be_learned_it_is_the_identity(
    logits: list[float], positive: list[bool], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert fit_logistic_map(np.array(logits, np.float32), np.array(positive, bool)) == IDENTITY
    assert reason in caplog.text


@settings(max_examples=50, deadline=None)
@given(scale=st.floats(0.01, 100), shift=st.floats(-50, 50), number=st.integers(2, 300), seed=st.integers(0, 2**32 - 1))
def test_it_never_costs_log_loss_on_smoothed_targets_and_keeps_the_order(
    scale: float, shift: float, number: int, seed: int
) -> None:
    logits, positive = rows(number, 1.0, 0.0, seed)
    logits = (scale * logits + shift).astype(np.float32)
    fitted = fit_logistic_map(logits, positive)
    assert np.isfinite(fitted).all() and fitted.scale > 0
    if fitted != IDENTITY:
        positives, negatives = positive.sum(), (~positive).sum()
        target = np.where(positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))

        def loss(a: float, b: float) -> float:
            logit = a * logits.astype(np.float64) + b
            return float((np.logaddexp(0, logit) - target * logit).mean())

        best = loss(*fitted)
        spread = float(logits.std())
        for a, b in ((1.001, 0.0), (0.999, 0.0), (1.0, 1e-3), (1.0, -1e-3)):
            # Around the mean of the logits, where a step of one parameter leaves the other alone.
            moved = fitted.scale * a
            offset = fitted.offset + b + (fitted.scale - moved) * float(logits.mean(dtype=np.float64))
            assert best <= loss(moved, offset) + 1e-8 * (1 + spread)


def test_probabilities_of_extreme_logits_do_not_overflow() -> None:
    with np.errstate(over="raise"):
        p = LogisticMap(1.0, 0.0).apply(np.float32([-1e4, 0, 1e4]))
    np.testing.assert_array_equal(p, [0, 0.5, 1])
    assert log_loss(p, np.array([True, True, True])) == pytest.approx((-np.log(1e-7) - np.log(0.5)) / 3, rel=1e-5)
