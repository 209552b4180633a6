"""Several models on the same rows, against direct computations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from dotbias.evaluation.exported.client import Export
from dotbias.evaluation.paired import PairedComparison, compare_answers, compare_exports
from dotbias.evaluation.shard_rows import read_eval, read_train
from pipeline.manifest import DotbiasError, read_manifest
from tests.dotbias.evaluation.conftest import no_progress
from tests.trainer.conftest import SIDES, random_rows, small_config
from tests.trainer.datasets import write_dataset
from trainer.config import HashingConfig
from trainer.data.dataset import Dataset
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
        assert metrics.pr_auc.value == pytest.approx(average_precision_score(positive, answer), abs=1e-6)
    assert pair.gains.auc.value == pytest.approx(roc_auc_score(positive, good) - roc_auc_score(positive, bad), abs=1e-6)
    # Less log loss is a gain.
    assert pair.gains.log_loss.value == pytest.approx(log_loss(positive, bad) - log_loss(positive, good), abs=1e-5)
    assert pair.gains.auc.low is not None
    assert pair.gains.auc.low > 0
    assert pair.gains.ndcg.value is None


@pytest.mark.slow
def test_intervals_of_gains_are_those_of_resampled_users() -> None:
    """Against a plain loop that draws users with replacement, and scikit-learn on the rows of those."""
    positive, good, users = answers(0.0)
    _, bad, _ = answers(1.0)
    gains = compare_answers(["good"], [bad, good], positive, users, resamples=1000)["good"].gains
    rng, rows_of = np.random.default_rng(3), [np.flatnonzero(users == user) for user in range(USERS)]
    drawn: dict[str, list[float]] = {"auc": [], "log_loss": [], "pr_auc": []}
    for _ in range(400):
        index = np.concatenate([rows_of[user] for user in rng.integers(0, USERS, USERS)])
        y, p, q = positive[index], bad[index], good[index]
        drawn["auc"].append(roc_auc_score(y, q) - roc_auc_score(y, p))
        drawn["log_loss"].append(log_loss(y, p) - log_loss(y, q))
        drawn["pr_auc"].append(average_precision_score(y, q) - average_precision_score(y, p))
    for name, differences in drawn.items():
        found, spread = getattr(gains, name), float(np.std(differences))
        low, high = np.quantile(differences, [0.025, 0.975])
        assert found.low == pytest.approx(low, abs=spread / 2), name
        assert found.high == pytest.approx(high, abs=spread / 2), name


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


@pytest.mark.slow
def test_exports_of_other_vocabularies_answer_for_the_same_tokens(tmp_path: Path) -> None:
    """The first knows half of the users; their indices differ between the two datasets."""
    rows, eval_rows = random_rows(600, 1, string_ids=True), random_rows(300, 2, string_ids=True)
    few = {name: values[:60] for name, values in rows.items()}
    for name, train_rows in (("few", few), ("all", rows)):
        write_dataset(tmp_path / name, train_rows, eval_rows, SIDES, positive_at=0.5)
        train(str(tmp_path / name), str(tmp_path / f"{name}-model"), small_config())
    few_export, all_export = (str(tmp_path / f"{name}-model" / "export") for name in ("few", "all"))
    compared = compare_exports(few_export, {"all": all_export, "few": few_export}, str(tmp_path / "all"), no_progress)
    assert PairedComparison.model_validate_json(compared.model_dump_json()) == compared
    assert compared.rows == 300
    assert compared.pairs["few"].gains.auc.value == 0
    assert compared.pairs["few"].gains.ndcg.value == 0
    direct = compare_exports(all_export, {"few": few_export}, str(tmp_path / "all"), no_progress)
    assert direct.pairs["few"].gains.auc.value == pytest.approx(-compared.pairs["all"].gains.auc.value)
    assert compared.pairs["all"].second.auc.value == direct.pairs["few"].first.auc.value


@pytest.mark.slow
def test_slices_by_what_the_dataset_knows(tmp_path: Path) -> None:
    """New users, new items and the values of a further feature, against the export asked by hand."""
    rng = np.random.default_rng(5)
    # Half of the eval users and a third of the eval items are new.
    train_rows = {**random_rows(400, 1, users=20, items=20), "place": rng.choice([1, 2, 3], 400).tolist()}
    eval_rows = {**random_rows(400, 2, users=40, items=30), "place": rng.choice([1, 2, 4], 400).tolist()}
    sides = {**SIDES, "place": "user"}
    write_dataset(tmp_path / "dataset", train_rows, eval_rows, sides, hashed=["place"], positive_at=0.5)
    config = small_config().model_copy(update={"hashing": {"place": HashingConfig(num_bins=8)}})
    exports = {}
    for seed in (1, 2):
        train(str(tmp_path / "dataset"), str(tmp_path / str(seed)), config.model_copy(update={"seed": seed}))
        exports[seed] = str(tmp_path / str(seed) / "export")
    compared = compare_exports(
        exports[1], {"b": exports[2]}, str(tmp_path / "dataset"), no_progress, features=["place"], resamples=100
    )
    data = Dataset(str(tmp_path / "dataset"), read_manifest(str(tmp_path / "dataset")), {})
    rows = read_eval(data, read_train(data, no_progress), no_progress)
    first, second = (Export(exports[seed], data.manifest).probabilities(rows, no_progress) for seed in (1, 2))
    known = {name: set(train_rows[name]) for name in SIDES}
    masks = {
        "new_users": ~np.isin(eval_rows["userId"], list(known["userId"])),
        "new_items": ~np.isin(eval_rows["movieId"], list(known["movieId"])),
        **{f"place: {value}": np.asarray(eval_rows["place"]) == value for value in (1, 2, 4)},
    }
    assert compared.slices.keys() == masks.keys()
    positive = np.asarray(eval_rows["label"]) >= np.float32(0.5)
    for name, mask in masks.items():
        gain = roc_auc_score(positive[mask], second[mask]) - roc_auc_score(positive[mask], first[mask])
        assert compared.slices[name].rows == mask.sum(), name
        assert compared.slices[name].pairs["b"].gains.auc.value == pytest.approx(gain, abs=1e-6), name


def test_a_feature_that_is_not_in_the_dataset(tmp_path: Path) -> None:
    write_dataset(tmp_path / "dataset", random_rows(60, 1), random_rows(60, 2), SIDES)
    with pytest.raises(DotbiasError, match="has no feature 'country'; it has userId, movieId"):
        compare_exports("x", {}, str(tmp_path / "dataset"), no_progress, features=["country"])


def test_a_dataset_without_eval_rows(tmp_path: Path) -> None:
    nothing = {name: values[:0] for name, values in random_rows(1, 1).items()}
    write_dataset(tmp_path / "dataset", random_rows(60, 1), nothing, SIDES)
    with pytest.raises(DotbiasError, match="has no eval rows"):
        compare_exports("x", {}, str(tmp_path / "dataset"), no_progress)
