"""Resamples of users: weights against scikit-learn, and intervals that cover what they should."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics

from dotbias.evaluation.measure.bootstrap import (
    ALL,
    FEWEST_USERS,
    _Resampler,
    _weighted_sums,
    differences,
    estimates,
    mean_estimate,
    mean_estimates,
    num_resamples,
    resampled,
)
from dotbias.evaluation.measure.metrics import all_metrics


def rows(users: int, rows_of_user: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Makes (probability, positive, user) for users whose rows resemble each other."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rows_of_user)
    logit = rng.normal(size=users)[user] + rng.normal(size=len(user))
    p = 1 / (1 + np.exp(-logit))
    # An effect of the user that the model does not know makes the rows of a user wrong together.
    off = rng.normal(size=users)[user]
    return p.astype(np.float32), rng.random(len(user)) < 1 / (1 + np.exp(-logit - off)), user


@pytest.mark.parametrize("decimals", [1, 7])
def test_weighted_metrics_against_scikit_learn(decimals: int) -> None:
    p, positive, user = rows(50, 8, seed=1)
    p = np.round(p, decimals).clip(0.001, 0.999)
    weights = np.random.default_rng(2).integers(0, 4, (50, 3)).astype(np.float32)
    measured = _Resampler(p, positive, user, 50, ALL).measure(weights)
    got, w = {name: values[1] for name, values in measured.items()}, weights[user, 1]
    assert got["auc"] == pytest.approx(sklearn.metrics.roc_auc_score(positive, p, sample_weight=w))
    assert got["pr-auc"] == pytest.approx(sklearn.metrics.average_precision_score(positive, p, sample_weight=w))
    assert got["log-loss"] == pytest.approx(sklearn.metrics.log_loss(positive, p, sample_weight=w), rel=1e-5)
    assert got["brier"] == pytest.approx(sklearn.metrics.brier_score_loss(positive, p, sample_weight=w), rel=1e-5)
    assert got["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(positive, p >= 0.5, sample_weight=w))
    assert got["label_mean"] == pytest.approx(np.average(positive, weights=w))


@pytest.mark.parametrize("decimals", [1, 7])
def test_weights_of_one_are_the_rows_themselves(decimals: int) -> None:
    p, positive, user = rows(50, 8, seed=1)
    p = np.round(p, decimals)
    got = _Resampler(p, positive, user, 50, ALL).measure(np.ones((50, 1), np.float32))
    assert {name: values[0] for name, values in got.items()} == pytest.approx(all_metrics(p, positive), rel=1e-6)


def test_rounding_does_not_add_up_over_many_users() -> None:
    rng = np.random.default_rng(3)
    values = (1000 * rng.random((1, 400_000))).astype(np.float32)
    weights = rng.integers(0, 4, (400_000, 2)).astype(np.float32)
    np.testing.assert_allclose(_weighted_sums(values, weights), values.astype(np.float64) @ weights, rtol=1e-6)


def test_levels_of_many_predictions_do_not_show() -> None:
    p, positive, user = rows(500, 60, seed=9)
    got = _Resampler(p, positive, user, 500, ALL).measure(np.ones((500, 1), np.float32))
    assert len(np.unique(p)) > 20_000
    exact = all_metrics(p, positive)
    assert got["pr-auc"][0] == pytest.approx(exact["pr-auc"], abs=1e-4)
    assert got["auc"][0] == pytest.approx(exact["auc"], abs=1e-6)
    assert got["ece"][0] == pytest.approx(exact["ece"], abs=1e-6)


def test_the_interval_is_that_of_users_and_not_of_rows() -> None:
    """Compares the interval with the spread of the AUC over new draws of users."""
    drawn = [estimates(*rows(60, 30, seed), metrics=["auc"], resamples=1)["auc"].value for seed in range(200)]
    spread = float(np.std([value for value in drawn if value is not None]))
    p, positive, user = rows(60, 30, seed=1000)
    by_user = estimates(p, positive, user, resamples=300)["auc"]
    by_row = estimates(p, positive, np.arange(len(user)), resamples=300)["auc"]
    assert by_user.value == by_row.value
    assert by_user.low is not None and by_user.high is not None and by_row.low is not None and by_row.high is not None
    assert (by_user.high - by_user.low) / (2 * 1.96) == pytest.approx(spread, rel=0.35)
    assert by_row.high - by_row.low < 0.7 * (by_user.high - by_user.low)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    truth = np.mean([all_metrics(*rows(2000, 10, seed)[:2])["auc"] for seed in range(20)])
    hits = 0
    for seed in range(100):
        found = estimates(*rows(60, 10, 1000 + seed), metrics=["auc"], resamples=200)["auc"]
        assert found.low is not None and found.high is not None
        hits += found.low <= truth <= found.high
    assert 86 <= hits <= 99


def test_a_difference_on_the_same_rows_is_known_better_than_either() -> None:
    p, positive, user = rows(100, 20, seed=3)
    better = np.clip(p + 0.02 * (2 * positive - 1), 0, 1).astype(np.float32)
    gain = differences(p, better, positive, user, resamples=200)["auc"]
    alone = estimates(p, positive, user, resamples=200)["auc"]
    assert gain.low is not None and gain.high is not None and alone.low is not None and alone.high is not None
    assert 0 < gain.low < gain.high < (alone.high - alone.low)
    same = differences(p, p, positive, user, resamples=50)["log-loss"]
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_the_same_seed_gives_the_same_interval() -> None:
    p, positive, user = rows(30, 5, seed=4)
    assert estimates(p, positive, user, resamples=50) == estimates(p, positive, user, resamples=50)
    assert estimates(p, positive, user, resamples=50) != estimates(p, positive, user, resamples=50, seed=1)
    # Users are names, not positions.
    assert estimates(p, positive, user * 1000 - 7, resamples=50) == estimates(p, positive, user, resamples=50)


def test_few_users_have_no_interval() -> None:
    p, positive, user = rows(FEWEST_USERS - 1, 50, seed=5)
    found = estimates(p, positive, user)
    assert found["auc"].value is not None
    assert found["auc"].low is None and found["auc"].high is None
    assert resampled([p], positive, user) == {}


def test_resamples_without_a_class_are_left_out() -> None:
    """One user in twelve has all positive rows, and is missing in some resamples."""
    p, _, user = rows(12, 4, seed=6)
    positive = (user == 0) & (np.arange(len(user)) < 3)
    drawn = resampled([p], positive, user, resamples=100)["auc"]
    assert 0 < np.isnan(drawn).sum() < 100
    assert estimates(p, positive, user, resamples=100)["auc"].low is not None
    # With rows of one class only, AUC is not defined.
    assert estimates(p, positive & False, user)["auc"].value is None


def test_a_mean_over_users() -> None:
    values = np.random.default_rng(7).normal(3, 2, 400)
    found = mean_estimate(values)
    assert found.low is not None and found.high is not None
    assert found.value == pytest.approx(values.mean())
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(values.std() / 20, rel=0.2)
    assert mean_estimate(values[:0]).value is None
    assert mean_estimate(values[:3]).low is None


@pytest.mark.parametrize("users", [0, 3, 400])
def test_means_of_several_numbers_are_those_of_each_alone(users: int) -> None:
    values = dict(enumerate(np.random.default_rng(7).normal(3, 2, (5, users))))
    assert mean_estimates(values) == {name: mean_estimate(of_users) for name, of_users in values.items()}


def test_chance_is_not_counted_twice_in_a_calibration_error() -> None:
    """With 2,000 rows of perfect probabilities, the error is chance alone, and resampling doubles its variance."""
    rng = np.random.default_rng(2)
    p = rng.random(2000)
    positive, users = rng.random(2000) < p, np.arange(2000) // 4
    found = estimates(p, positive, users, metrics=["ece"], resamples=300)["ece"]
    assert found.value is not None and found.low is not None and found.high is not None
    assert np.median(resampled([p], positive, users, metrics=["ece"], resamples=300)["ece"]) > 1.2 * found.value
    assert 0 <= found.low < found.value < found.high


def test_many_rows_get_fewer_resamples() -> None:
    assert [num_resamples(rows) for rows in (0, 1000, 500_000, 10**9)] == [1000, 1000, 400, 100]
