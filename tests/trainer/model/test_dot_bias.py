from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from pipeline.manifest import Split
from trainer.config import TrainerConfig
from trainer.model.calibration import Calibration, LogisticMap
from trainer.model.dot_bias import DotBias, apply_map, dot_bias, log_odds
from trainer.model.tables import feature_configs

SIDES = {"userId": "user", "movieId": "item", "genre": "item"}
ROWS = {"userId": 7, "movieId": 5, "genre": 3}


def make_model(l2: float = 0.0, bias_l2_factor: float = 1.0, dim: int = 4, positive_at: float = 0.5) -> DotBias:
    rng = np.random.default_rng(0)
    weights = {name: rng.random(rows).astype(np.float32) for name, rows in ROWS.items()}
    model = DotBias(
        SIDES,  # type: ignore[arg-type]
        feature_configs(ROWS, TrainerConfig(embedding_dim=dim)),
        initial_bias=0.3,
        positive_at=positive_at,
        l2=l2,
        bias_l2_factor=bias_l2_factor,
        l2_weights=weights,
    )
    for table in model.tables.values():
        table.assign(rng.normal(size=table.shape))
    return model


def make_batch(rows: int, seed: int = 1) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    rng = np.random.default_rng(seed)
    features = {name: tf.constant(rng.integers(0, n, rows), tf.int32) for name, n in ROWS.items()}
    return features, tf.constant(rng.random(rows), tf.float32)


def test_logit_is_a_dot_product_plus_three_biases() -> None:
    model = make_model()
    features, _ = make_batch(20)
    looked_up = {name: table.numpy()[features[name].numpy()] for name, table in model.tables.items()}
    user, item = looked_up["userId"], looked_up["movieId"] + looked_up["genre"]
    expected = [u[:-1] @ v[:-1] + u[-1] + v[-1] + 0.3 for u, v in zip(user, item, strict=True)]
    np.testing.assert_allclose(model(features), expected, rtol=1e-5, atol=1e-5)


def test_one_unit_more_than_the_bias_is_a_product_of_scalars() -> None:
    embeddings = {"u": tf.constant([[2.0, 10.0]]), "i": tf.constant([[3.0, 100.0]])}
    assert dot_bias(embeddings, {"u": "user", "i": "item"}, tf.constant(1000.0)).numpy() == [1116.0]


@pytest.mark.parametrize(
    ("mean", "rows", "expected"), [(0.5, 10, 0.0), (0.0, 9, math.log(1 / 19)), (1.0, 9, math.log(19))]
)
def test_log_odds_are_finite(mean: float, rows: int, expected: float) -> None:
    split = Split(rows=rows, positive_rows=0, label_mean=mean, shards=[])
    assert log_odds(split) == pytest.approx(expected)


def test_tables_start_small_different_and_with_biases_of_zero() -> None:
    configs = feature_configs({"a": 1000, "b": 1000}, TrainerConfig(embedding_dim=8, initial_stddev=0.05))
    a, b = (configs[name].table.initializer([1000, 8], tf.float32).numpy() for name in ("a", "b"))
    np.testing.assert_array_equal(a[:, -1], 0)
    assert np.abs(a).max() <= 0.1
    assert a[:, :-1].std() == pytest.approx(0.044, rel=0.05)
    assert np.abs(np.corrcoef(a[:, 0], b[:, 0])[0, 1]) < 0.2


def test_loss_is_the_mean_cross_entropy_plus_the_weighted_squares_of_looked_up_rows() -> None:
    l2, factor = 0.7, 2.5
    model = make_model(l2, factor)
    for table in model.tables.values():
        # Biases start at 0, where they would cost nothing.
        table.assign_add(tf.fill(table.shape, 0.1))
    features, label = make_batch(20)
    p, y = tf.sigmoid(model(features)).numpy(), label.numpy()
    cross_entropy = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    rng = np.random.default_rng(0)
    penalty = 0.0
    for name, rows in ROWS.items():
        weights = rng.random(rows).astype(np.float32)
        ids = features[name].numpy()
        squares = model.tables[name].numpy()[ids] ** 2
        penalty += np.mean(weights[ids] * (squares[:, :-1].sum(axis=1) + factor * squares[:, -1]))
    assert float(model.compute_loss((features, label))) == pytest.approx(cross_entropy, rel=1e-5)
    trained = float(model.compute_loss((features, label), training=True))
    assert trained == pytest.approx(cross_entropy + l2 * penalty, rel=1e-5)


def test_gradients_equal_finite_differences() -> None:
    model = make_model(l2=0.7, bias_l2_factor=2.5, dim=3)
    batch = make_batch(6)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(batch, training=True)
    tables = model.tables
    gradients = tape.gradient(loss, list(tables.values()))
    h = 1e-2
    for table, gradient in zip(tables.values(), gradients, strict=True):
        start = table.numpy()
        numeric = np.zeros_like(start)
        for position in np.ndindex(*start.shape):
            losses = []
            for sign in (1, -1):
                moved = start.copy()
                moved[position] += sign * h
                table.assign(moved)
                losses.append(float(model.compute_loss(batch, training=True)))
            numeric[position] = (losses[0] - losses[1]) / (2 * h)
        table.assign(start)
        np.testing.assert_allclose(tf.convert_to_tensor(gradient), numeric, atol=2e-3)


def test_metrics_equal_scikit_learn_on_positives() -> None:
    model = make_model(positive_at=0.6)
    features, label = make_batch(3000)
    model.reset_metrics()
    model.compute_loss((features, label))
    metrics = {metric.name: float(metric.result()) for metric in model.metrics}
    p, y = tf.sigmoid(model(features)).numpy().astype(float), label.numpy()
    positive = y >= np.float32(0.6)
    assert metrics["auc"] == pytest.approx(roc_auc_score(positive, p), abs=1e-3)
    assert metrics["pr-auc"] == pytest.approx(average_precision_score(positive, p), abs=5e-3)
    assert metrics["accuracy"] == pytest.approx(np.mean((p > 0.5) == positive))
    assert metrics["prediction_mean"] == pytest.approx(p.mean(), rel=1e-5)
    assert metrics["label_mean"] == pytest.approx(y.mean(), rel=1e-5)
    both = np.concatenate([np.ones(3000), np.zeros(3000)])
    soft = log_loss(both, np.tile(p, 2), sample_weight=np.concatenate([y, 1 - y]))
    assert metrics["label-crossentropy"] == pytest.approx(soft, rel=1e-4)


def test_a_label_that_equals_the_threshold_is_positive() -> None:
    # 0.8 * (4 - 0.5) / 4.5 + 0.2 as float32 is a little less than as float64.
    threshold = 0.8 * 3.5 / 4.5 + 0.2
    model = make_model(positive_at=threshold)
    features, _ = make_batch(1)
    model.reset_metrics()
    model.bias.assign(100.0)
    model.compute_loss((features, tf.constant([threshold], tf.float32)))
    assert {m.name: float(m.result()) for m in model.metrics}["accuracy"] == 1


def test_the_calibration_maps() -> None:
    assert float(apply_map(tf.constant(0.5), tf.constant(2.0), tf.constant(-1.0))) == 0.5
    model = make_model()
    logit = model(make_batch(5)[0])
    maps = [(model.calibration_scale, model.calibration_offset), (model.value_scale, model.value_offset)]
    for scale, offset in maps:
        np.testing.assert_allclose(apply_map(logit, scale, offset), tf.sigmoid(logit))
        assert not scale.trainable and not offset.trainable
    model.set_calibration(Calibration(LogisticMap(2.0, -1.0), LogisticMap(3.0, 0.5)))
    assert [(float(scale), float(offset)) for scale, offset in maps] == [(2.0, -1.0), (3.0, 0.5)]
