"""Checks that each warning appears where it should, and only there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dotbias.evaluation.measure.bootstrap import differences
from dotbias.evaluation.measure.warnings import (
    bias_warnings,
    cold_warnings,
    expected_cold,
    label_warnings,
    leak_warnings,
    mean_warnings,
    training_warnings,
)
from dotbias.evaluation.results import Baseline, Estimate
from dotbias.evaluation.rows import Rows
from tests.dotbias.evaluation.conftest import make_rows


def result(refit: Any = None, fingerprint: str = "a") -> dict[str, Any]:
    return {"dataset": {"fingerprint": fingerprint}, "train": {"refit": refit}}


@pytest.mark.parametrize(
    ("known", "before_refit", "split", "codes"),
    [
        (result(), False, "eval", []),
        (result(refit={"rows": 9}), False, "eval", ["trained-on-these-rows"]),
        (result(refit={"rows": 9}), True, "eval", []),
        (result(refit={"rows": 9}), True, "train", ["trained-on-these-rows"]),
        (result(refit={"rows": 9}), False, None, []),
        (result(), False, "train", ["trained-on-these-rows"]),
        (result(fingerprint="b"), False, "eval", ["unknown-training"]),
        (result(refit={"rows": 9}, fingerprint="b"), True, "eval", ["unknown-training"]),
        (None, False, "eval", ["unknown-training"]),
        (None, False, None, []),
    ],
)
def test_trained_on_these_rows(known: Any, before_refit: bool, split: str | None, codes: list[str]) -> None:
    assert [warning.code for warning in training_warnings(known, before_refit, split, "a")] == codes


def random_rows(rows: int, seed: int, timed: bool, users: int = 100) -> Rows:
    rng = np.random.default_rng(seed)
    return make_rows(
        {"u": rng.integers(0, users, rows).tolist(), "i": rng.integers(0, 100, rows).tolist()},
        timestamps=rng.integers(0, 10**9, rows).tolist() if timed else None,
        known={"u": users, "i": 100},
    )


def joined(*parts: Rows) -> Rows:
    return Rows(
        parts[0].ids,
        {name: np.concatenate([part.codes[name] for part in parts]) for name in parts[0].codes},
        np.concatenate([part.labels for part in parts]),
        None if parts[0].timestamps is None else np.concatenate([part.timestamps for part in parts]),
    )


def first(rows: Rows, number: int) -> Rows:
    timestamps = None if rows.timestamps is None else rows.timestamps[:number]
    return Rows(rows.ids, {n: c[:number] for n, c in rows.codes.items()}, rows.labels[:number], timestamps)


def test_rows_of_train_with_the_same_time_are_a_leak() -> None:
    train, fresh = random_rows(5000, 1, timed=True), random_rows(990, 2, timed=True)
    assert leak_warnings(fresh, train) == []
    (warning,) = leak_warnings(joined(fresh, first(train, 10)), train)
    assert warning.code == "leaked-rows" and warning.text.startswith("1.0% of the rows have the same ids and time")


def test_without_time_only_what_repeats_more_than_train_does() -> None:
    """Draws 5,000 rows from 10,000 pairs, so that train and the later rows repeat pairs equally often."""
    train, fresh = random_rows(5000, 1, timed=False), random_rows(1000, 2, timed=False)
    assert leak_warnings(fresh, train) == []
    (warning,) = leak_warnings(joined(fresh, first(train, 500)), train)
    assert warning.code == "leaked-rows" and "of train rows repeat" in warning.text


def test_ids_without_a_name_leak_nothing() -> None:
    bucket = make_rows({"u": [5] * 50, "i": [5] * 50}, timestamps=[7] * 50, known={"u": 5, "i": 5}, named=False)
    assert leak_warnings(bucket, bucket) == []


@pytest.mark.parametrize(("positive", "codes"), [([True] * 3, 1), ([False] * 3, 1), ([True, False], 0)])
def test_one_class(positive: list[bool], codes: int) -> None:
    assert len(label_warnings(np.array(positive))) == codes


def test_new_ids_by_time() -> None:
    """Users come one after another, ten rows each, so all users of the last tenth are new."""
    users = np.repeat(np.arange(100), 10)
    train = make_rows({"u": users.tolist()}, timestamps=list(range(1000)))
    assert expected_cold(train, "u")[0] == 1
    warm = make_rows({"u": [1, 2, 3, 4]}, known={"u": 100})
    assert [warning.code for warning in cold_warnings(warm, train, "u")] == ["no-cold-ids"]
    mixed = make_rows({"u": [1, 2, 200, 201]}, known={"u": 100})
    assert cold_warnings(mixed, train, "u") == []
    # All users all the time: nobody is new.
    steady = make_rows({"u": (np.arange(1000) % 50).tolist()}, timestamps=list(range(1000)))
    assert cold_warnings(warm, steady, "u") == []


def test_new_ids_without_time() -> None:
    """The expected share of new ids is the share of rows whose id occurs once."""
    train = make_rows({"u": [0] * 60 + list(range(1, 41))}, known={"u": 41})
    assert expected_cold(train, "u")[0] == pytest.approx(0.4)
    bucket = make_rows({"u": [0] * 60 + [1] * 40}, known={"u": 1}, named=False)
    assert expected_cold(bucket, "u")[0] == pytest.approx(0.4)


def test_expected_new_ids_come() -> None:
    """Compares the estimate from one sample with another sample from the same source."""
    rng = np.random.default_rng(3)
    p = 1 / np.arange(1, 5001)
    draws = rng.choice(5000, 6000, p=p / p.sum())
    train = make_rows({"u": draws[:3000].tolist()}, known={"u": 5000})
    new = ~np.isin(draws[3000:], draws[:3000])
    assert expected_cold(train, "u")[0] == pytest.approx(new.mean(), rel=0.35)


@pytest.mark.parametrize(
    ("gain", "part"),
    [
        (Estimate(value=0.01, low=0.0, high=0.02), None),
        (Estimate(value=None), None),
        (Estimate(value=-0.01, low=-0.02, high=0.001), "(it may be chance)"),
        (Estimate(value=-0.01, low=-0.02, high=-0.001), "0.0100 below that of biases alone,"),
    ],
)
def test_below_the_biases(gain: Estimate, part: str | None) -> None:
    some = Estimate(value=0.5)
    baselines = [
        Baseline(name=name, auc=some, log_loss=some, auc_gain=gain, log_loss_gain=some)
        for name in ("base rate", "biases alone")
    ]
    warnings = bias_warnings(baselines)
    assert [part in warning.text for warning in warnings] == ([] if part is None else [True])


def test_a_mean_that_is_off() -> None:
    rng = np.random.default_rng(4)
    p = rng.uniform(0.1, 0.5, 4000).astype(np.float32)
    users = np.arange(4000) // 4
    fair, biased = rng.random(4000) < p, rng.random(4000) < p / 2
    assert mean_warnings(p, fair, users) == []
    assert [warning.code for warning in mean_warnings(p, biased, users)] == ["off-in-the-mean"]
    # Of a few rows it may be chance.
    assert mean_warnings(np.full(40, 0.3), np.arange(40) % 5 == 0, np.arange(40)) == []


def test_gains_are_differences_on_the_same_rows() -> None:
    """Checks that resamples are shared; test_evaluate checks the sign of a gain."""
    rng = np.random.default_rng(5)
    p = rng.random(2000)
    positive = rng.random(2000) < p
    worse = (p + rng.normal(0, 0.3, 2000)).clip(0, 1)
    found = differences(worse, p, positive, np.arange(2000) // 5)
    assert found["auc"].low is not None and found["auc"].low > 0
