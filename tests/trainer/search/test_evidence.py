from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from trainer.model.calibration import fit_logistic_map
from trainer.search.evidence import Gain, gain, label_scores


def drawn(rng: np.random.Generator, rows: int, users: int, noise: float) -> tuple[np.ndarray, ...]:
    """Returns users, labels and the logits of two models, the second with `noise`, which is the same for a user."""
    user = rng.integers(0, users, rows)
    truth = rng.normal(0, 1.5, rows)
    positive = rng.random(rows) < 1 / (1 + np.exp(-truth))
    other = truth + noise * rng.standard_normal(users)[user]
    return user, positive, np.round(truth, 2).astype(np.float32), np.round(other, 2).astype(np.float32)


def test_the_mean_is_auc_less_log_loss() -> None:
    _, positive, logits, _ = drawn(np.random.default_rng(1), 2000, 100, 0.5)
    probability = fit_logistic_map(logits, positive).apply(logits)
    expected = roc_auc_score(positive, logits) - log_loss(positive, probability)
    assert label_scores(logits, positive).mean() == pytest.approx(expected, abs=1e-6)


def test_values_on_a_scale_are_judged_by_their_cross_entropy() -> None:
    values = np.linspace(0, 1, 101, dtype=np.float32)
    close, far = values, np.where(np.arange(101) % 2, values, 1 - values).astype(np.float32)
    positive = values >= 0.5
    assert label_scores(close, positive, values).mean() > label_scores(far, positive, values).mean() + 0.1


def test_with_one_class_the_log_loss_alone_counts() -> None:
    scores = label_scores(np.array([0.1, 0.2], np.float32), np.array([True, True]))
    assert (scores < 0).all()


def test_the_standard_error_is_the_spread_over_other_rows_of_other_users() -> None:
    rng = np.random.default_rng(2)
    gains = []
    for _ in range(200):
        # Two sets of rows, as of two folds.
        pairs = []
        for _ in range(2):
            user, positive, first, second = drawn(rng, 1500, 150, 0.8)
            pairs.append((label_scores(first, positive), label_scores(second, positive), user))
        gains.append(gain(pairs))
    spread = np.std([found.value for found in gains])
    assert np.mean([found.error for found in gains]) == pytest.approx(spread, rel=0.2)
    # The second model is worse.
    assert np.mean([found.value for found in gains]) < -0.02


def test_what_the_rows_of_a_user_share_is_counted_once() -> None:
    first, second = np.zeros(100), np.repeat([1.0, -1.0], 50)
    assert gain([(first, second, np.repeat(np.arange(2), 50))]) == Gain(0.0, pytest.approx(np.sqrt(2) * 50 / 100))
    assert gain([(first, second, np.arange(100))]) == Gain(0.0, pytest.approx(0.1))
