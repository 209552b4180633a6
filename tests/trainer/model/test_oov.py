from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import minimize

from tests.trainer.conftest import SIDES, random_rows
from tests.trainer.datasets import write_dataset
from trainer.build import build_model
from trainer.config import OptimizerConfig, TrainerConfig
from trainer.data.dataset import Dataset
from trainer.loop.defaults import with_automatic_values
from trainer.model.oov import OovEmbeddings, untrained
from trainer.train import train

CONFIG = TrainerConfig(embedding_dim=4, batch_size=64, epochs=3, steps_per_execution=3, l2=0.1, bias_l2_factor=2.0)


def rows_with_rare_items(rows: int, seed: int, first_rare: int) -> dict[str, Any]:
    """Draws rows of which a fifth have an item that occurs once; even users like only those, odd users the others."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 10, rows), rng.integers(0, 10, rows)
    item[::5] = first_rare + np.arange(len(item[::5]))
    label = (user % 2 == 0) == (item >= first_rare)
    return {"userId": user.tolist(), "movieId": item.tolist(), "label": label.astype(float)}


@pytest.mark.slow
@pytest.mark.parametrize("num_oov_buckets", [1, 3])
def test_new_ids_get_what_rare_ids_have_in_common(tmp_path: Path, num_oov_buckets: int) -> None:
    train_rows, eval_rows = rows_with_rare_items(2000, 1, 1000), rows_with_rare_items(600, 2, 5000)
    write_dataset(tmp_path / "dataset", train_rows, eval_rows, SIDES, num_oov_buckets=num_oov_buckets)
    config = CONFIG.model_copy(update={"epochs": 8, "l2": 0.01, "optimizer": OptimizerConfig(learning_rate=0.03)})
    result = train(str(tmp_path / "dataset"), str(tmp_path / "model"), config)
    for directory in ("export_before_refit", "export"):
        serve = tf.saved_model.load(str(tmp_path / "model" / directory)).signatures["serving_default"]
        users = tf.range(10, dtype=tf.int64)
        new = serve(userId=users, movieId=tf.range(90_000, 90_010, dtype=tf.int64))["probability"].numpy()
        assert new[::2].mean() > new[1::2].mean() + 0.5, directory
    # A fifth of the eval rows have new items.
    assert result["train"]["epochs"][-1]["eval"]["auc"] > 0.98


def test_the_fit_is_that_of_the_loss_of_the_model(tmp_path: Path) -> None:
    sides = {"userId": "user", "movieId": "item", "genre": "item"}
    rows = random_rows(400, 1) | {"genre": [f"g{i % 4}" for i in range(400)]}
    write_dataset(tmp_path, rows, rows, sides, num_oov_buckets=2)
    data = Dataset.open(str(tmp_path), CONFIG)
    config = with_automatic_values(CONFIG, data)
    model = build_model(data, config, tf.distribute.get_strategy())
    rng = np.random.default_rng(0)
    for table in model.tables.values():
        table.assign(rng.normal(size=table.shape))
    before = {name: table.numpy() for name, table in model.tables.items()}
    oov = OovEmbeddings(model, data, config)
    oov.fit()
    sample = oov._samples["movieId"]  # type: ignore[index]
    user, genre = before["userId"][sample.features["userId"]], before["genre"][sample.features["genre"]]
    for name, size in data.manifest.features.items():
        # Both buckets, and nothing else, of each feature.
        after, known = model.tables[name].numpy(), size.vocabulary_size
        np.testing.assert_array_equal(after[:known], before[name][:known])
        np.testing.assert_array_equal(after[known], after[known + 1])
        assert not np.any(after[known:] == before[name][known:])

    def loss(row: np.ndarray) -> float:
        item = genre + row
        logit = np.sum(user[:, :-1] * item[:, :-1], axis=1) + user[:, -1] + item[:, -1] + float(model.bias)
        rows = len(logit)
        penalty = 0.1 * (rows**-0.5 + 1 / rows) * (np.sum(row[:-1] ** 2) + 2.0 * row[-1] ** 2)
        return float(np.mean(np.logaddexp(0, logit) - sample.label * logit) + penalty)

    best = minimize(loss, np.zeros(4), tol=1e-10).x
    fitted = model.tables["movieId"].numpy()[data.manifest.features["movieId"].vocabulary_size]
    np.testing.assert_allclose(fitted, best, atol=1e-4)


def test_each_id_has_about_one_row_in_the_sample(tmp_path: Path) -> None:
    # One item has half of the rows, and each of a hundred others five.
    items = [0] * 500 + [1 + i % 100 for i in range(500)]
    rows = {"userId": [i % 20 for i in range(1000)], "movieId": items, "label": [i % 2 for i in range(1000)]}
    write_dataset(tmp_path, rows, random_rows(5, 1), SIDES)
    data = Dataset.open(str(tmp_path), CONFIG)
    config = with_automatic_values(CONFIG, data)
    oov = OovEmbeddings(build_model(data, config, tf.distribute.get_strategy()), data, config)
    oov.fit()
    assert oov._samples is not None
    drawn = oov._samples["movieId"].features["movieId"]
    assert len(drawn) == 102 and np.sum(drawn == 0) <= 4


def test_oov_rows_that_train_rows_look_up_stay_as_they_were_trained(dataset: Dataset) -> None:
    config = with_automatic_values(CONFIG, dataset)
    assert untrained(dataset) == []
    model = build_model(dataset, config, tf.distribute.get_strategy())
    before = {name: table.numpy() for name, table in model.tables.items()}
    OovEmbeddings(model, dataset, config).fit()
    for name, table in model.tables.items():
        np.testing.assert_array_equal(table.numpy(), before[name])


def test_under_a_strategy_the_fit_is_the_same(tmp_path: Path) -> None:
    write_dataset(tmp_path, random_rows(400, 1), random_rows(50, 2), SIDES)
    data = Dataset.open(str(tmp_path), CONFIG)
    config = with_automatic_values(CONFIG, data)
    fitted = []
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["/cpu:0"])):
        with strategy.scope():
            model = build_model(data, config, strategy)
        before = {name: table.numpy() for name, table in model.tables.items()}
        OovEmbeddings(model, data, config).fit()
        fitted.append({name: table.numpy()[-1] for name, table in model.tables.items()})
        assert all(np.any(before[name][-1] != row) for name, row in fitted[-1].items())
    for name, row in fitted[0].items():
        np.testing.assert_allclose(row, fitted[1][name], rtol=1e-6)
