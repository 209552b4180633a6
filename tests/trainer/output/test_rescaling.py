from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from pipeline.manifest import counts_name, vocabulary_name
from tests.trainer.datasets import write_dataset
from trainer.build import build_model
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.loop.defaults import with_automatic_values
from trainer.model import blocks
from trainer.model.calibration import fit_logistic_map, log_loss
from trainer.model.dot_bias import DotBias
from trainer.output import rescaling
from trainer.output.export import load_export
from trainer.output.predictions import predict
from trainer.output.rescaling import Parts, Rescaling
from trainer.train import train

CONFIG = TrainerConfig(embedding_dim=4)
SIDES = {"userId": "user", "country": "user", "movieId": "item"}


def drawn(rows: int, seed: int) -> dict[str, Any]:
    """Draws rows whose ids have counts of many sizes, for labels from `truth`."""
    rng = np.random.default_rng(seed)
    user, item = rng.zipf(1.3, rows) % 60, rng.zipf(1.3, rows) % 40
    tokens = {"userId": user, "country": user % 3, "movieId": item}
    label = rng.random(rows) < 1 / (1 + np.exp(-logits(truth(), tokens)))
    return {name: values.tolist() for name, values in tokens.items()} | {"label": label.astype(float)}


def truth() -> dict[str, np.ndarray]:
    """Makes embeddings by token: two directions of the vectors are used."""
    rng = np.random.default_rng(7)
    return {
        name: rng.normal(size=(ids, 4)) * [1.2, 0.6, 0, 0.8]
        for name, ids in {"userId": 61, "country": 4, "movieId": 41}.items()
    }


def logits(embeddings: Mapping[str, np.ndarray], ids: Mapping[str, Any]) -> np.ndarray:
    user = embeddings["userId"][ids["userId"]] + embeddings["country"][ids["country"]]
    item = embeddings["movieId"][ids["movieId"]]
    return np.sum(user[:, :-1] * item[:, :-1], axis=1) + user[:, -1] + item[:, -1]


def model_of(path: Path, eval_rows: Mapping[str, Any], **options: Any) -> tuple[DotBias, Dataset]:
    """Makes a model with the true embeddings."""
    write_dataset(path, drawn(4000, 1), eval_rows, SIDES, rows_per_shard=1000, **options)
    data = Dataset.open(str(path), CONFIG)
    model = build_model(data, with_automatic_values(CONFIG, data), tf.distribute.get_strategy())
    model.bias.assign(0.0)
    for name, table in model.tables.items():
        tokens = np.array((path / vocabulary_name(name)).read_text().split(), int)
        rows = np.zeros(table.shape, np.float32)
        rows[: len(tokens)] = truth()[name][tokens]
        table.assign(rows)
    return model, data


def losses(model: DotBias, data: Dataset) -> float:
    """Measures the log loss of the eval rows after a logistic map."""
    found, labels = map(np.concatenate, zip(*predict(model, data, "eval"), strict=True))
    return log_loss(fit_logistic_map(found, labels >= 1).apply(found), labels >= 1)


@pytest.fixture(scope="module")
def rows() -> dict[str, Any]:
    return drawn(20_000, 2)


def test_weights_undo_what_was_done_to_the_parts(tmp_path: Path, rows: dict[str, Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(rescaling, "_PRIOR_DEVIATION", 10.0)
    model, data = model_of(tmp_path, rows)
    best = losses(model, data)
    spoilt = Rescaling(data, "eval")
    spoilt.parts = Parts(
        user_bias=-0.6, item_bias=1.0, user_vectors_by_count=0.3, item_vectors_by_count=-0.2, item_bias_by_count=-0.4
    )
    spoilt.apply(model)
    assert losses(model, data) > best + 0.02
    found = Rescaling(data, "eval")
    found.fit(model)
    # The weight of the vectors is 1; the biases were multiplied by 0.4 and by 2.
    assert 1 + found.parts.user_bias == pytest.approx(1 / 0.4, rel=0.15)
    assert 1 + found.parts.item_bias == pytest.approx(1 / 2, rel=0.15)
    found.apply(model)
    assert losses(model, data) < best + 0.002


def test_weights_give_back_what_was_taken_from_singular_values(
    tmp_path: Path, rows: dict[str, Any], monkeypatch: Any
) -> None:
    monkeypatch.setattr(rescaling, "_PRIOR_DEVIATION", 10.0)
    model, data = model_of(tmp_path, rows)
    best = losses(model, data)
    spoilt = Rescaling(data, "eval")
    spoilt.parts = Parts(directions=-0.2)
    spoilt.apply(model)
    assert losses(model, data) > best + 0.003
    found = Rescaling(data, "eval")
    found.fit(model)
    assert found.parts.directions > 0.1
    found.apply(model)
    assert losses(model, data) < best + 0.001


def test_few_rows_leave_the_weights_at_1(tmp_path: Path) -> None:
    model, data = model_of(tmp_path, drawn(50, 3))
    found = Rescaling(data, "eval")
    found.fit(model)
    assert np.abs(found.parts).max() < 0.05


@pytest.mark.parametrize("evaluation", ["no rows", "one class", "a useless logit"])
def test_nothing_changes_without_evidence(tmp_path: Path, evaluation: str) -> None:
    rows = drawn({"no rows": 0, "one class": 50, "a useless logit": 2000}[evaluation], 3)
    if evaluation == "one class":
        rows["label"] = np.ones(50)
    if evaluation == "a useless logit":
        rows["label"] = 1 - rows["label"]
    model, data = model_of(tmp_path, rows)
    before = {name: table.numpy() for name, table in model.tables.items()}
    found = Rescaling(data, "eval")
    found.fit(model)
    found.apply(model)
    assert found.parts == Parts()
    for name, table in model.tables.items():
        np.testing.assert_array_equal(table.numpy(), before[name])


def test_tables_change_as_the_weights_say(tmp_path: Path, rows: dict[str, Any], monkeypatch: Any) -> None:
    # Three rows in a block.
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 48)
    model, data = model_of(tmp_path, rows, frequency_threshold=2)
    before = {name: table.numpy() for name, table in model.tables.items()}
    scaled = Rescaling(data, "eval")
    scaled.parts = Parts(0.5, -0.97, 0.0, 0.1, 0.2, 0.3, -0.01)
    scaled.apply(model)
    for name, table in model.tables.items():
        counts = np.array((tmp_path / counts_name(name)).read_text().split(), float)
        # Ids that are not in the vocabulary are as rare as an id can be.
        logarithm = np.log([*counts, 1])
        share = np.array([*counts, data.manifest.features[name].oov_rows["train"]]) / 4000
        mean = share @ logarithm
        level = np.clip((logarithm - mean) / np.sqrt(share @ (logarithm - mean) ** 2), -3, 3)
        vectors, factor, bias = (0.1, 1.5, 0.2) if SIDES[name] == "user" else (0.2, 0.1, -0.1)
        np.testing.assert_allclose(
            table.numpy()[:, :-1], before[name][:, :-1] * np.exp(vectors * level)[:, None], rtol=1e-4, atol=1e-6
        )
        if SIDES[name] == "user":
            bias = 0.3 / 1.5
        np.testing.assert_allclose(
            table.numpy()[:, -1], before[name][:, -1] * factor * np.exp(bias * level), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("refit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_training_exports_rescaled_tables_and_keeps_its_own_for_a_warm_start(tmp_path: Path, refit: bool) -> None:
    write_dataset(tmp_path / "dataset", drawn(3000, 1), drawn(1500, 2), SIDES, rows_per_shard=1000)
    options = {"embedding_dim": 4, "epochs": 2, "refit": refit, "optimizer": {"learning_rate": 0.03}}
    with_, without = tmp_path / "with", tmp_path / "without"
    config = TrainerConfig.model_validate(options)
    result = train(str(tmp_path / "dataset"), str(with_), config)
    plain = train(str(tmp_path / "dataset"), str(without), config.model_copy(update={"rescale": False}))
    assert plain["rescaling"] is None and result["rescaling"] != Parts()._asdict()
    # The eval rows are those that the weights were fitted to.
    assert result["calibration"]["log_loss"] < plain["calibration"]["log_loss"]
    states = [tf.train.load_checkpoint(str(path / "state" / "weights")) for path in (with_, without)]
    for name in states[0].get_variable_to_shape_map():
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH":
            np.testing.assert_array_equal(*(state.get_tensor(name) for state in states))
    for directory in ["export", *(["export_before_refit"] if refit else [])]:
        ours, theirs = (load_export(str(path / directory))[0] for path in (with_, without))
        data = Dataset.open(str(tmp_path / "dataset"), config)
        model = build_model(data, with_automatic_values(config, data), tf.distribute.get_strategy())
        for name, table in model.tables.items():
            table.assign(theirs.tables[name])
        rescaling_ = Rescaling(data, "eval")
        rescaling_.parts = Parts(**result["rescaling"])
        rescaling_.apply(model)
        for name, table in model.tables.items():
            np.testing.assert_allclose(ours.tables[name].numpy(), table.numpy(), rtol=1e-5, atol=1e-7)


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_equal_directions_have_equal_singular_values(rank: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(rank, 5))
    user, item = ((rng.normal(size=(300, rank)) @ mixed).astype(np.float32) for _ in range(2))
    roots = [rescaling._roots(vectors)[0] for vectors in (user, item)]
    before = np.linalg.svd(roots[0] @ roots[1])[1]
    after = np.linalg.svd(roots[0] @ rescaling._equal_directions(user, item) @ roots[1])[1]
    kept = before > 0.02 * before[0]
    np.testing.assert_allclose(after[kept], np.sum(before**2) / np.sum(before), rtol=1e-3)
    np.testing.assert_allclose(after[~kept], 0, atol=1e-3 * before[0])
