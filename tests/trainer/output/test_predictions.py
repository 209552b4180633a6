from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipeline.manifest import MANIFEST_NAME, Label, vocabulary_name
from tests.trainer.conftest import SIDES, random_rows
from tests.trainer.data.test_reader import rows_of
from tests.trainer.datasets import write_dataset
from trainer.build import build_model
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.reader import read_batches
from trainer.loop.defaults import with_automatic_values
from trainer.model.calibration import fit_logistic_map, fit_value_map, log_loss
from trainer.model.dot_bias import DotBias
from trainer.output import predictions
from trainer.output.predictions import calibrate

CONFIG = TrainerConfig(embedding_dim=4)


def random_model(path: Path, eval_rows: int) -> tuple[DotBias, Dataset]:
    """Makes a dataset with labels from a column in [-10, 10], and a model with random tables."""
    manifest = write_dataset(path, random_rows(300, 1), random_rows(eval_rows, 2), SIDES, positive_at=0.5)
    label = Label(column="rating", threshold=None, scale=(-10.0, 10.0), soft_weight=None, positive_at=0.5)
    (path / MANIFEST_NAME).write_text(manifest.model_copy(update={"label": label}).to_json())
    data = Dataset.open(str(path), CONFIG)
    model = build_model(data, with_automatic_values(CONFIG, data), tf.distribute.get_strategy())
    rng = np.random.default_rng(1)
    for name, table in model.tables.items():
        rows = rng.normal(size=table.shape) * 0.3
        tokens = np.array((path / vocabulary_name(name)).read_text().split(), int)
        # Makes logits depend on the labels, as after a training.
        rows[: len(tokens), -1] += tokens % 7 / 3 if name == "userId" else (tokens + 7) // 1000 % 5 / 3
        table.assign(rows)
    return model, data


def predicted(model: DotBias, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Computes logits and labels of the eval rows by hand."""
    user, item, label = map(np.array, zip(*rows_of(read_batches(data, "eval", 100)), strict=True))
    u, v = model.tables["userId"].numpy()[user], model.tables["movieId"].numpy()[item]
    return np.sum(u[:, :-1] * v[:, :-1], axis=1) + u[:, -1] + v[:, -1] + float(model.bias), label.astype(np.float32)


def test_maps_are_fitted_to_the_first_rows_and_measured_on_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "_ROWS_OF_A_FIT", 200)
    # Several batches, of which the sample ends in the middle of the second.
    monkeypatch.setattr(predictions, "EVAL_BATCH_SIZE", 128)
    model, data = random_model(tmp_path, 500)
    logits, labels = predicted(model, data)
    positive = labels >= 0.5
    found = calibrate(model, data, "eval")
    probability, value = fit_logistic_map(logits[:200], positive[:200]), fit_value_map(logits[:200], labels[:200])
    np.testing.assert_allclose(found.maps.probability, probability, rtol=1e-4)
    np.testing.assert_allclose(found.maps.value, value, rtol=1e-4)
    before, after = 1 / (1 + np.exp(-logits)), found.maps.probability.apply(logits)
    errors = 20 * (found.maps.value.apply(logits) - labels)
    assert found.report == pytest.approx(
        {
            "scale": found.maps.probability.scale,
            "offset": found.maps.probability.offset,
            "value_scale": found.maps.value.scale,
            "value_offset": found.maps.value.offset,
            "log_loss_before": log_loss(before, positive),
            "log_loss": log_loss(after, positive),
            "accuracy_before": np.mean((before >= 0.5) == positive),
            "accuracy": np.mean((after >= 0.5) == positive),
            "rmse_before": 20 * np.sqrt(np.mean((before - labels) ** 2)),
        },
        rel=1e-5,
    )
    assert found.metrics == pytest.approx(
        {
            "accuracy": found.report["accuracy"],
            "rmse": np.sqrt(np.mean(errors**2)),
            "mae": np.mean(np.abs(errors)),
        },
        rel=1e-5,
    )


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "_ROWS_OF_A_FIT", 900)
    monkeypatch.setattr(predictions, "EVAL_BATCH_SIZE", 1000)
    model, data = random_model(tmp_path, 1000)
    once: list[Any] = list(read_batches(data, "eval", 1000))
    peaks = []
    for times in (2, 400):
        monkeypatch.setattr(predictions, "read_batches", lambda *_, times=times: iter(once * times))
        calibrate(model, data, "eval")
        tracemalloc.start()
        calibrate(model, data, "eval")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # A million bytes are 2.5 for each of the 400,000 rows.
    assert peaks[1] < peaks[0] + 1_000_000


def test_a_split_without_rows_has_parameters_alone(tmp_path: Path) -> None:
    model, data = random_model(tmp_path, 0)
    found = calibrate(model, data, "eval")
    assert found.report == {"scale": 1.0, "offset": 0.0, "value_scale": 1.0, "value_offset": 0.0}
    assert found.metrics == {}
