from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tests.trainer.datasets import write_dataset
from trainer.config import SoftmaxConfig, TrainerConfig
from trainer.data.candidates import Candidates
from trainer.data.dataset import Dataset
from trainer.data.reader import read_batches
from trainer.model.dot_bias import dot_bias
from trainer.model.softmax import SoftmaxDotBias, sampled_softmax, scaled_vectors
from trainer.model.tables import feature_configs

ITEMS = 12
SIDES = {"user": "user", "item": "item"}


def make_model(
    rows: dict[str, int] | None = None, *, share: npt.NDArray[np.float32] | None = None, **softmax: Any
) -> SoftmaxDotBias:
    """Makes a model with random vectors and biases; the tests draw the candidates."""
    rows = rows or {"user": 5, "item": ITEMS}
    options = SoftmaxConfig(**{"temperature": 0.1} | softmax)
    model = SoftmaxDotBias(
        {name: SIDES[name] for name in rows},
        feature_configs(rows, TrainerConfig(embedding_dim=4)),
        positive_at=0.5,
        candidates=Candidates("item", rows["item"], {}, options.candidates, seed=1),
        softmax=options,
        share=share,
    )
    rng = np.random.default_rng(0)
    for table in model.tables.values():
        table.assign(rng.normal(size=table.shape))
    return model


def exact_losses(model: SoftmaxDotBias, users: npt.NDArray[Any], items: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Computes -log P(item | user) by the whole softmax, in NumPy."""
    u, v = model.tables["user"].numpy(), model.tables["item"].numpy()
    u, v, bias = u[:, :-1], v[:, :-1], v[:, -1]
    u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (u, v))
    logits = u[users] @ v.T / 0.1 + bias
    return np.asarray(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(users)), items])


@pytest.mark.parametrize("in_batch", [0, 3000])
def test_the_loss_is_that_of_the_whole_softmax(in_batch: int) -> None:
    """With many candidates the estimate is exact, so that a wrong sign of logQ would be noticed."""
    rng = np.random.default_rng(1)
    share = rng.dirichlet(np.full(ITEMS, 0.5)).astype(np.float32)
    uniform = 6000
    model = make_model(share=share if in_batch else None, candidates=uniform, in_batch=in_batch)
    users, items = rng.integers(0, 5, 4000), rng.choice(ITEMS, 4000, p=share / share.sum())
    features = {"user": tf.constant(users, tf.int32), "item": tf.constant(items, tf.int32)}
    batch = model.candidates.append(features, tf.constant(0, tf.int64), tf.constant(0, tf.int64))
    loss = model.compute_loss((batch, tf.ones(4000)))
    assert float(loss) == pytest.approx(exact_losses(model, users, items).mean(), rel=0.02)
    assert float(model.task.result()) == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("parts", [1, 3])
def test_value_and_gradient_are_those_of_autodiff(parts: int) -> None:
    """All logits are so large that exp would overflow."""
    rng = np.random.default_rng(3)
    users, own, candidates = (rng.normal(size=(n, 6)) for n in (7, 7, 5))
    users[:, -1], own[:, -1], candidates[:, -1] = 1, 90, 90
    masked = tf.constant([2, -1, 0, 4, -1, 2, 3])
    weight = tf.constant(rng.random(7), tf.float32)

    def plainly(users: tf.Tensor, own: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
        positive = tf.reduce_sum(users * own, axis=1, keepdims=True)
        counts = tf.range(5) != masked[:, tf.newaxis]
        others = tf.where(counts, users @ tf.transpose(candidates), -np.inf)
        return tf.reduce_logsumexp(tf.concat([positive, others], axis=1), axis=1) - positive[:, 0]

    def ours(*of: tf.Tensor) -> tf.Tensor:
        return sampled_softmax(*of, masked, parts)

    found = []
    for losses in (plainly, ours):
        of = [tf.Variable(tf.constant(value, tf.float32)) for value in (users, own, candidates)]
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(weight * losses(*of))
        found.append((loss, *tape.gradient(loss, of)))
    for expected, got in zip(*found, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("scale", "last"), [(1.0, None), (10.0, 0.0), (10.0, 1.0)])
def test_the_gradient_of_a_scaled_vector_is_that_of_autodiff(scale: float, last: float | None) -> None:
    rows, upstream = (tf.constant(np.random.default_rng(n).normal(size=(4, 5)), tf.float32) for n in (4, 5))

    def plainly(rows: tf.Tensor) -> tf.Tensor:
        biases = rows[:, -1:] if last is None else tf.fill([4, 1], last)
        return tf.concat([scale * tf.math.l2_normalize(rows[:, :-1], axis=1), biases], axis=1)

    found = []
    for scaled in (plainly, lambda rows: scaled_vectors(rows, scale, last)):
        variable = tf.Variable(rows)
        with tf.GradientTape() as tape:
            value = scaled(variable)
            loss = tf.reduce_sum(upstream * value)
        found.append((value, tape.gradient(loss, variable)))
    for expected, got in zip(*found, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_short_vector_has_a_finite_gradient() -> None:
    rows = tf.Variable(tf.zeros([2, 4]))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(scaled_vectors(rows, 10.0, None))
    assert np.isfinite(tape.gradient(value, rows)).all()


def test_the_own_item_counts_once_and_equal_candidates_as_often_as_they_were_drawn() -> None:
    """Item 3 was drawn twice and item 7, which is the row's own, once; all vectors have the length 1."""
    model = make_model(candidates=4, temperature=1.0)
    features = {"user": tf.constant([2]), "item": tf.constant([7, 3, 3, 5, 7])}
    loss = float(model.compute_loss((features, tf.ones(1))))
    u, v = model.tables["user"].numpy()[2, :-1], model.tables["item"].numpy()
    vectors = v[:, :-1] / np.linalg.norm(v[:, :-1], axis=1, keepdims=True)
    terms = np.exp(vectors @ u / np.linalg.norm(u) + v[:, -1])
    total = terms[7] + (2 * terms[3] + terms[5]) / (4 / ITEMS)
    assert loss == pytest.approx(np.log(total) - np.log(terms[7]), rel=1e-5)


def test_rows_that_fill_up_and_negative_rows_do_not_count() -> None:
    """Filled-up rows count neither as rows nor as candidates."""
    model = make_model(share=np.full(ITEMS, 1 / ITEMS, np.float32), candidates=4, in_batch=4)
    drawn = [3, 4, 5, 6]

    def loss(users: list[int], items: list[int], label: list[float], weight: list[float]) -> float:
        features = {"user": tf.constant(users), "item": tf.constant([*items, *drawn])}
        return float(model.compute_loss((features, tf.constant(label), tf.constant(weight))))

    alone = loss([1, 2], [7, 8], [1.0, 0.5], [1.0, 1.0])
    assert loss([1, 2, 0, 3], [7, 8, 0, 9], [1.0, 0.5, 1.0, 0.4], [1.0, 1.0, 0.0, 1.0]) == pytest.approx(alone)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Makes rows of five users and nine items that all occur, so that no train row has an OOV bucket."""
    rng = np.random.default_rng(2)
    rows = {"user": [*range(5), *rng.integers(0, 5, 55)], "item": [*range(9), *rng.integers(0, 9, 51)]}
    train = {name: [int(value) for value in values] for name, values in rows.items()} | {"label": [1.0] * 60}
    empty: dict[str, Any] = {"user": [], "item": [], "label": []}
    write_dataset(tmp_path, train, {**empty}, SIDES, frequency_threshold=1)
    return Dataset.open(str(tmp_path), TrainerConfig())


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("item_bias", [True, False])
def test_folding_leaves_a_dot_product_plus_biases(data: Dataset, normalize: bool, item_bias: bool) -> None:
    model = make_model(dict(data.table_rows), temperature=0.2, normalize=normalize, item_bias=item_bias)
    before = {name: table.numpy() for name, table in model.tables.items()}
    model.fold(data)
    u, v = before["user"][:5, :-1], before["item"][:9, :-1]
    if normalize:
        u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (u, v))
    scores = u @ v.T / 0.2 + item_bias * before["item"][:9, -1]
    user, item = (grid.ravel() for grid in np.meshgrid(np.arange(5), np.arange(9), indexing="ij"))
    embeddings = {"user": tf.gather(model.tables["user"], user), "item": tf.gather(model.tables["item"], item)}
    logits = dot_bias(embeddings, model.sides, model.bias).numpy().reshape(5, 9)
    # The same but for the global bias.
    np.testing.assert_allclose(logits - logits.mean(), scores - scores.mean(), atol=1e-4)
    assert not model.tables["user"].numpy()[:, -1].any()


def test_exp_of_a_folded_logit_is_about_the_share_of_the_item(data: Dataset) -> None:
    model = make_model(dict(data.table_rows))
    model.fold(data)
    (batch,) = read_batches(data, "train", 64)
    users = tf.gather(model.tables["user"], batch[0]["user"])
    logits = users[:, :-1] @ tf.transpose(model.tables["item"][:, :-1]) + model.tables["item"][:, -1] + model.bias
    assert float(tf.reduce_mean(tf.reduce_logsumexp(logits, axis=1))) == pytest.approx(0.0, abs=1e-4)


def test_an_oov_bucket_without_rows_answers_as_the_rarest_ids(data: Dataset) -> None:
    model = make_model(dict(data.table_rows))
    model.fold(data)
    # A tenth of nine items is one.
    np.testing.assert_allclose(model.tables["item"][9], model.tables["item"][8], rtol=1e-6)
