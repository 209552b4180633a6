"""Checks that the biases-alone model finds the true biases and shrinks those of rare ids."""

from __future__ import annotations

import numpy as np
import sklearn.linear_model

from dotbias.evaluation.measure.biases import PRECISION, fit_biases
from dotbias.evaluation.measure.metrics import auc


def drawn(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    user_bias, item_bias = rng.normal(size=30), rng.normal(size=20)
    users, items = rng.integers(0, 30, rows), rng.integers(0, 20, rows)
    p = 1 / (1 + np.exp(-(user_bias[users] + item_bias[items] - 0.5)))
    return users.astype(np.int32), items.astype(np.int32), rng.random(rows) < p, p


def test_against_a_logistic_regression_on_one_hot_ids() -> None:
    users, items, positive, _ = drawn(3000, seed=1)
    biases = fit_biases(users, items, positive, 30, 20)
    one_hot = np.concatenate([np.eye(30)[users], np.eye(20)[items]], axis=1)
    share = (positive.sum() + 0.5) / (len(positive) + 1)
    assert np.isclose(biases.intercept, np.log(share / (1 - share)))
    # The same penalty; the intercept is held by a column that costs nothing.
    offset = np.full((len(users), 1), biases.intercept * 1e4)
    peer = sklearn.linear_model.LogisticRegression(C=1 / PRECISION, fit_intercept=False, tol=1e-8, max_iter=5000)
    peer.fit(np.concatenate([one_hot, offset], axis=1), positive)
    wanted = peer.predict_proba(np.concatenate([one_hot, offset], axis=1))[:, 1]
    np.testing.assert_allclose(biases.probabilities(users, items), wanted, atol=0.01)


def test_it_comes_near_the_truth() -> None:
    users, items, positive, p = drawn(20_000, seed=2)
    biases = fit_biases(users, items, positive, 30, 20)
    assert auc(biases.probabilities(users, items), positive) > auc(p, positive) - 0.005


def test_ids_that_train_does_not_know() -> None:
    users, items, positive, _ = drawn(3000, seed=3)
    biases = fit_biases(users, items, positive, 30, 20)
    # New ids have no bias if train has no rows of unknown ids, else they share one.
    assert biases.user[30] == biases.item[20] == 0
    p = biases.probabilities(np.array([30, 999], np.int32), np.array([20, 999], np.int32))
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-biases.intercept)))
    with_buckets = fit_biases(users, items, positive, 25, 20)
    assert with_buckets.user.shape == (26,)
    assert with_buckets.user[25] != 0


def test_one_class_stays_finite() -> None:
    users, items, _, _ = drawn(200, seed=4)
    p = fit_biases(users, items, np.ones(200, bool), 30, 20).probabilities(users, items)
    assert np.isfinite(p).all()
    assert p.min() > 0.9
