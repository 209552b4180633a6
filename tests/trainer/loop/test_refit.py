"""Checks that the refit trains on train and eval rows for the best number of epochs, and is not measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from pipeline.manifest import MANIFEST_NAME, DatasetManifest, Label
from tests.trainer.conftest import SIDES, random_rows
from tests.trainer.datasets import write_dataset
from tests.trainer.runs import Killed
from trainer.build import compiled_model
from trainer.config import OptimizerConfig, TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.reader import read_batches
from trainer.loop.defaults import with_automatic_values
from trainer.loop.refit import with_eval_rows
from trainer.loop.saved_state import make_slots, start_anew, state_variables
from trainer.model.calibration import log_loss
from trainer.train import train

CONFIG = TrainerConfig(embedding_dim=4, batch_size=64, epochs=4, steps_per_execution=3, l2=0.01, rescale=False)
TRAIN, EVAL = random_rows(550, 1), random_rows(90, 2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("dataset")
    write_dataset(path, TRAIN, EVAL, SIDES, positive_at=0.5)
    return str(path)


@pytest.fixture(scope="module")
def refitted(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("model")
    return path, train(dataset, str(path), CONFIG)


def export_of(model_dir: Path, directory: str = "export") -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(model_dir / directory / "variables" / "variables"))
    names = sorted(name for name in reader.get_variable_to_shape_map() if name != "_CHECKPOINTABLE_OBJECT_GRAPH")
    return {name: reader.get_tensor(name) for name in names}


def assert_same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], but: str = "nothing") -> None:
    assert one.keys() == other.keys()
    for name in one:
        if but not in name:
            np.testing.assert_array_equal(one[name], other[name])


def test_all_rows_are_train_rows(dataset: str) -> None:
    data = Dataset.open(dataset, CONFIG)
    everything = with_eval_rows(data)
    assert everything.split("train").rows == 640 and everything.split("eval").rows == 0
    labels = np.concatenate([label.numpy() for _, label in read_batches(everything, "train", 64)])
    both = np.concatenate([TRAIN["label"], EVAL["label"]])
    np.testing.assert_allclose(np.sort(labels), np.sort(both), rtol=1e-6)
    assert everything.split("train").label_mean == pytest.approx(both.mean(), rel=1e-5)
    assert everything.split("train").positive_rows == (both >= 0.5).sum()
    # The original dataset has not changed.
    assert data.split("train").rows == 550 and data.split("eval").rows == 90


def test_it_is_a_training_on_all_rows_for_the_best_number_of_epochs(
    dataset: str, refitted: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    model_dir, result = refitted
    best = result["train"]["best_epoch"]
    assert result["train"]["refit"]["rows"] == 640
    assert [record["epoch"] for record in result["train"]["refit"]["epochs"]] == list(range(1, best + 1))
    # The same by hand: a dataset without eval split, whose train rows are all rows. Vocabulary and counts stay.
    manifest = DatasetManifest.from_json(Path(dataset, MANIFEST_NAME).read_text())
    merged = with_eval_rows(Dataset(dataset, manifest, {})).manifest
    for name in ("train", "eval", "vocabulary"):
        (tmp_path / name).symlink_to(Path(dataset, name))
    (tmp_path / MANIFEST_NAME).write_text(merged.to_json())
    # Values that depend on the number of rows stay too.
    same = {"bias_l2_factor": result["config"]["bias_l2_factor"], "epochs": best, "refit": False}
    train(str(tmp_path), str(tmp_path / "model"), CONFIG.model_copy(update=same))
    assert_same(export_of(model_dir), export_of(tmp_path / "model"), but="calibration")


@pytest.mark.parametrize(
    "optimizer", ["lazy_adam", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rowwise_adam", "adagrad"))]
)
def test_a_trained_model_can_start_anew(dataset: str, optimizer: str) -> None:
    data = Dataset.open(dataset, CONFIG)
    options = CONFIG.model_copy(update={"optimizer": OptimizerConfig(name=optimizer)})
    config = with_automatic_values(options, data)
    made = []
    for _ in range(2):
        model = compiled_model(data, config, tf.distribute.get_strategy())
        make_slots(model)
        made.append(model)
    trained, new = made
    before = {name: variable.numpy() for name, variable in state_variables(new).items()}
    trained.fit(read_batches(data, "train", 64), verbose=0)
    after = {name: variable.numpy() for name, variable in state_variables(trained).items()}
    assert all(not np.array_equal(after[name], value) for name, value in before.items())
    start_anew(trained, data.split("train"))
    assert_same({name: variable.numpy() for name, variable in state_variables(trained).items()}, before)


@pytest.mark.slow
def test_what_is_reported_is_the_model_before(
    dataset: str, refitted: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    model_dir, result = refitted
    without = train(dataset, str(tmp_path), CONFIG.model_copy(update={"refit": False}))
    assert result["eval"] == without["eval"] and result["calibration"] == without["calibration"]
    assert result["eval_of"] == "the model before the refit" and without["eval_of"] == "the exported model"
    assert without["train"]["refit"] is None
    before, after = export_of(tmp_path), export_of(model_dir)
    assert_same(export_of(model_dir, "export_before_refit"), before)
    assert not (tmp_path / "export_before_refit").exists()
    for name, value in before.items():
        # The map and the names of items are those from before the refit; all other variables have changed.
        assert np.array_equal(value, after[name]) == ("calibration" in name or "tokens" in name), name


def test_the_export_from_before_has_the_auc_that_is_reported(refitted: tuple[Path, dict[str, Any]]) -> None:
    model_dir, result = refitted
    serve = tf.saved_model.load(str(model_dir / "export_before_refit")).signatures["serving_default"]
    answers = serve(**{name: tf.constant(EVAL[name], tf.int64) for name in SIDES})["probability"].numpy()
    positive = np.asarray(EVAL["label"], np.float32) >= 0.5
    # Training takes it from four thousand thresholds.
    assert roc_auc_score(positive, answers) == pytest.approx(result["eval"]["auc"], abs=2e-3)
    assert log_loss(answers.astype(np.float64), positive) == pytest.approx(result["calibration"]["log_loss"], rel=1e-5)


def test_the_map_is_fitted_on_rows_that_the_model_has_not_seen(
    refitted: tuple[Path, dict[str, Any]],
) -> None:
    model_dir, result = refitted
    calibration = result["calibration"]
    assert calibration["scale"] != 1.0
    assert calibration["log_loss"] < calibration["log_loss_before"]
    assert result["eval"]["accuracy"] == calibration["accuracy"]
    exported = export_of(model_dir)
    for part in ("scale", "offset"):
        (name,) = [name for name in exported if f"calibration_{part}" in name]
        assert float(exported[name]) == pytest.approx(calibration[part], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("row", [1, 640 + 200])
def test_a_refit_that_was_killed_goes_on(
    dataset: str, refitted: tuple[Path, dict[str, Any]], tmp_path: Path, row: int
) -> None:
    model_dir, undisturbed = refitted
    assert undisturbed["train"]["best_epoch"] >= 2

    def die(stage: str, done: int, total: int | None, metrics: Mapping[str, float]) -> None:
        if stage == "refit" and done >= row:
            raise Killed

    with pytest.raises(Killed):
        train(dataset, str(tmp_path), CONFIG, die)
    assert not (tmp_path / "metrics.json").exists() and not (tmp_path / "export").exists()
    assert_same(export_of(tmp_path, "export_before_refit"), export_of(model_dir, "export_before_refit"))
    calls: list[tuple[str, int]] = []
    result = train(dataset, str(tmp_path), CONFIG, lambda stage, done, *_: calls.append((stage, done)))
    # Nothing of the first training is done again, and no epoch of the refit that was complete.
    assert {stage for stage, _ in calls} == {"refit"}
    assert min(done for _, done in calls) >= row // 640 * 640
    assert result["train"]["refit"] == undisturbed["train"]["refit"]
    assert_same(export_of(tmp_path), export_of(model_dir))


def test_without_eval_rows_there_is_nothing_to_refit(tmp_path: Path) -> None:
    write_dataset(tmp_path / "dataset", TRAIN, random_rows(0, 2), SIDES)
    result = train(str(tmp_path / "dataset"), str(tmp_path / "model"), CONFIG)
    assert result["train"]["refit"] is None and result["eval"] == {}
    assert result["calibration"] == {"scale": 1.0, "offset": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [None, 4.0])
def test_errors_are_in_the_units_of_the_scale(tmp_path: Path, threshold: float | None) -> None:
    manifest = write_dataset(tmp_path / "dataset", TRAIN, EVAL, SIDES, positive_at=0.5)
    label = Label(column="rating", threshold=threshold, scale=(-10.0, 10.0), soft_weight=None, positive_at=0.5)
    (tmp_path / "dataset" / MANIFEST_NAME).write_text(manifest.model_copy(update={"label": label}).to_json())
    result = train(str(tmp_path / "dataset"), str(tmp_path / "model"), CONFIG.model_copy(update={"refit": False}))
    if threshold is not None:
        assert "rmse" not in result["eval"] and "mae" not in result["eval"]
        return
    serve = tf.saved_model.load(str(tmp_path / "model" / "export")).signatures["serving_default"]
    value = serve(**{name: tf.constant(EVAL[name], tf.int64) for name in SIDES})["value"].numpy()
    error = value - (20 * np.asarray(EVAL["label"]) - 10)
    assert result["eval"]["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-4)
    assert result["eval"]["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-4)
    assert result["calibration"]["value_scale"] != 1
    assert result["eval"]["rmse"] < result["calibration"]["rmse_before"]
    # Better than the mean of the labels.
    assert result["eval"]["rmse"] < 20 * np.std(EVAL["label"])
    assert json.loads((tmp_path / "model" / "metrics.json").read_text())["eval"] == result["eval"]
