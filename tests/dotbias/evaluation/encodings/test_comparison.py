"""Checks that all variants are measured on the same rows and resamples and compared with the first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from dotbias.evaluation.encodings.comparison import Comparison, compare
from dotbias.evaluation.rows import Ids, Rows
from tests.dotbias.evaluation.comparisons import variant

ROWS = 4000


def rows(seed: int, size: int) -> Rows:
    """Makes rows of 60 users, of whom train knows 50, and 30 items; lower ids are more frequent."""
    rng = np.random.default_rng(seed)
    codes = {"userId": np.minimum(rng.geometric(0.08, size) - 1, 59), "movieId": rng.integers(0, 30, size)}
    ids = {"userId": Ids(pa.array(range(60)), 50, named=True), "movieId": Ids(pa.array(range(30)), 30, named=True)}
    return Rows(ids, {name: c.astype(np.int32) for name, c in codes.items()}, np.zeros(size, np.float32), None)


@pytest.fixture(scope="module")
def train() -> Rows:
    given = rows(1, 9000)
    known = given.codes["userId"] < 50
    codes = {name: codes[known] for name, codes in given.codes.items()}
    return Rows(given.ids, codes, given.labels[known], None)


@pytest.fixture(scope="module")
def predictions() -> tuple[np.ndarray[Any, Any], list[np.ndarray[Any, Any]]]:
    """Makes labels, their true probabilities, and the probabilities with some noise and with much noise."""
    rng = np.random.default_rng(3)
    logit = rng.normal(size=ROWS)
    positive = rng.random(ROWS) < 1 / (1 + np.exp(-logit))
    noise = rng.normal(size=ROWS)
    return positive, [(1 / (1 + np.exp(-(logit + s * noise)))).astype(np.float32) for s in (0.5, 0.0, 2.0)]


@pytest.fixture(scope="module")
def compared(train: Rows, predictions: Any) -> Comparison:
    positive, probabilities = predictions
    variants = [variant("configured", "configured"), variant("true", "hashing"), variant("noisy", "hashing")]
    return compare(variants, probabilities, positive, rows(2, ROWS), train, "userId", "auc", lambda *_: None)


def test_values_and_gains_against_scikit_learn(compared: Comparison, predictions: Any) -> None:
    positive, probabilities = predictions
    auc = [roc_auc_score(positive, p) for p in probabilities]
    loss = [log_loss(positive, p.astype(float)) for p in probabilities]
    for number, name in enumerate(("configured", "true", "noisy")):
        found = compared.scores[name]
        assert found.auc.value == pytest.approx(auc[number])
        assert found.log_loss.value == pytest.approx(loss[number], rel=1e-5)
        # Positive is better, in both.
        assert found.auc_gain.value == pytest.approx(auc[number] - auc[0])
        assert found.log_loss_gain.value == pytest.approx(loss[0] - loss[number], abs=1e-6)
        assert compared.behind[name]["auc"].value == pytest.approx(auc[1] - auc[number])
        assert compared.behind[name]["log-loss"].value == pytest.approx(loss[number] - loss[1], abs=1e-6)
    assert compared.best == "true"


def test_intervals_are_of_the_difference(compared: Comparison) -> None:
    same, better, worse = (compared.scores[name] for name in ("configured", "true", "noisy"))
    assert same.auc_gain.low == same.auc_gain.high == 0
    assert better.auc_gain.low is not None and better.auc_gain.low > 0
    assert worse.log_loss_gain.high is not None and worse.log_loss_gain.high < 0
    # Rows that are hard for both predictions do not widen the interval of the difference.
    assert better.auc.high is not None and better.auc.low is not None and better.auc_gain.high is not None
    assert better.auc_gain.high - better.auc_gain.low < better.auc.high - better.auc.low


def test_another_seed_is_never_the_best(train: Rows, predictions: Any) -> None:
    positive, probabilities = predictions
    variants = [variant("configured", "configured"), variant("reseeded", "reseeded"), variant("noisy", "hashing")]
    found = compare(variants, probabilities, positive, rows(2, ROWS), train, "userId", "auc", lambda *_: None)
    assert found.best == "configured"


def test_slices_are_by_how_often_train_has_an_id(compared: Comparison, train: Rows, predictions: Any) -> None:
    positive, probabilities = predictions
    evaluation = rows(2, ROWS)
    counts = np.bincount(train.codes["userId"], minlength=60)[evaluation.codes["userId"]]
    parts = {part.value: part for part in compared.slices if part.kind == "userId"}
    for value, chosen in {
        "0 (cold)": counts == 0,
        "10 to 99": (counts >= 10) & (counts < 100),
        "100 to 999": (counts >= 100) & (counts < 1000),
    }.items():
        assert chosen.sum() >= 50
        assert parts[value].rows == chosen.sum()
        expected = roc_auc_score(positive[chosen], probabilities[2][chosen])
        assert parts[value].scores["noisy"].auc.value == pytest.approx(expected)
    # No item is rare here.
    assert {part.value for part in compared.slices if part.kind == "movieId"} == {"100 to 999"}
    # Groups with too few rows are left out.
    assert all(part.rows >= 50 for part in compared.slices)
