"""Several models on the same rows, against direct computations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from dotbias.evaluation.paired import compare_answers, compare_exports
from pipeline.manifest import DotbiasError
from tests.dotbias.evaluation.conftest import no_progress
from tests.trainer.conftest import SIDES, random_rows, small_config
from tests.trainer.datasets import write_dataset
from trainer.train import train

ROWS, USERS = 4000, 100


def answers(noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, answers of a model that errs by `noise`, and users."""
    rng = np.random.default_rng(0)
    logits, users = rng.normal(size=ROWS), rng.integers(0, USERS, ROWS)
    positive = rng.random(ROWS) < 1 / (1 + np.exp(-logits))
    heard = logits + np.random.default_rng(seed + 1).normal(0, noise, ROWS)
    return positive, (1 / (1 + np.exp(-heard))).astype(np.float32), users


def test_values_and_gains_are_those_of_scikit_learn() -> None:
    positive, good, users = answers(0.0)
    _, bad, _ = answers(2.0)
    pair = compare_answers(["good"], [bad, good], positive, users)["good"]
    for metrics, answer in ((pair.first, bad), (pair.second, good)):
        assert metrics.auc.value == pytest.approx(roc_auc_score(positive, answer), abs=1e-6)
        assert metrics.log_loss.value == pytest.approx(log_loss(positive, answer), abs=1e-5)
    assert pair.gains.auc.value == pytest.approx(roc_auc_score(positive, good) - roc_auc_score(positive, bad), abs=1e-6)
    # Less log loss is a gain.
    assert pair.gains.log_loss.value == pytest.approx(log_loss(positive, bad) - log_loss(positive, good), abs=1e-5)
    assert pair.gains.auc.low is not None
    assert pair.gains.auc.low > 0
    assert pair.gains.ndcg.value is None


def test_a_model_against_itself_gains_exactly_nothing() -> None:
    positive, same, users = answers(1.0)
    gains = compare_answers(["same"], [same, same], positive, users)["same"].gains
    assert (gains.auc.low, gains.auc.value, gains.auc.high) == (0, 0, 0)
    assert (gains.log_loss.low, gains.log_loss.high) == (0, 0)


def test_intervals_of_a_difference_are_narrower_than_those_of_the_models() -> None:
    positive, one, users = answers(0.2, seed=1)
    _, other, _ = answers(0.2, seed=2)
    pair = compare_answers(["other"], [one, other], positive, users)["other"]

    def width(estimate) -> float:  # type: ignore[no-untyped-def]
        return float(estimate.high - estimate.low)

    assert width(pair.gains.auc) < 0.7 * width(pair.first.auc)


def test_ndcg_is_paired_by_user() -> None:
    positive, same, users = answers(1.0)
    before, after = np.linspace(0, 0.8, 50), np.linspace(0, 0.8, 50) + 0.1
    gains = compare_answers(["x"], [same, same], positive, users, [before, after])["x"].gains
    assert gains.ndcg.value == pytest.approx(0.1)
    assert gains.ndcg.low == pytest.approx(0.1)
    assert gains.ndcg.high == pytest.approx(0.1)


def test_rows_of_one_class_have_no_auc() -> None:
    _, same, users = answers(1.0)
    gains = compare_answers(["x"], [same, same], np.ones(ROWS, bool), users)["x"].gains
    assert gains.auc.value is None


def test_exports_of_other_vocabularies_answer_for_the_same_tokens(tmp_path: Path) -> None:
    """The first knows half of the users; their indices differ between the two datasets."""
    rows, eval_rows = random_rows(600, 1, string_ids=True), random_rows(300, 2, string_ids=True)
    few = {name: values[:60] for name, values in rows.items()}
    for name, train_rows in (("few", few), ("all", rows)):
        write_dataset(tmp_path / name, train_rows, eval_rows, SIDES, positive_at=0.5)
        train(str(tmp_path / name), str(tmp_path / f"{name}-model"), small_config())
    few_export, all_export = (str(tmp_path / f"{name}-model" / "export") for name in ("few", "all"))
    compared = compare_exports(few_export, {"all": all_export, "few": few_export}, str(tmp_path / "all"), no_progress)
    assert compared.rows == 300
    assert compared.pairs["few"].gains.auc.value == 0
    assert compared.pairs["few"].gains.ndcg.value == 0
    direct = compare_exports(all_export, {"few": few_export}, str(tmp_path / "all"), no_progress)
    assert direct.pairs["few"].gains.auc.value == pytest.approx(-compared.pairs["all"].gains.auc.value)
    assert compared.pairs["all"].second.auc.value == direct.pairs["few"].first.auc.value


def test_a_dataset_without_eval_rows(tmp_path: Path) -> None:
    nothing = {name: values[:0] for name, values in random_rows(1, 1).items()}
    write_dataset(tmp_path / "dataset", random_rows(60, 1), nothing, SIDES)
    with pytest.raises(DotbiasError, match="has no eval rows"):
        compare_exports("x", {}, str(tmp_path / "dataset"), no_progress)
