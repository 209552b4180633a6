from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from trainer.config import OptimizerConfig
from trainer.model.optimizers import LazyAdam, RowwiseAdam, make_embedding_optimizer, make_optimizer

Array = npt.NDArray[np.float64]
LEARNING_RATE = 0.05
ROWS, DIM, STEPS = 50, 3, 60
# As Keras has them.
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7


class Reference:
    """Updates a table in NumPy from dense gradients, summed over repeated ids, and the rows of the batch."""

    def __init__(self, table: Array) -> None:
        self.table = table.copy()
        self.m, self.v = np.zeros_like(table), np.zeros_like(table)
        self.row_v = np.zeros((len(table), 2))
        self.accumulator = np.full_like(table, 0.1)
        self.step = 0

    def _adam(self, grad: Array, rows: npt.NDArray[np.int64] | slice) -> None:
        self.step += 1
        self.m[rows] = BETA_1 * self.m[rows] + (1 - BETA_1) * grad[rows]
        self.v[rows] = BETA_2 * self.v[rows] + (1 - BETA_2) * grad[rows] ** 2
        rate = LEARNING_RATE * np.sqrt(1 - BETA_2**self.step) / (1 - BETA_1**self.step)
        self.table[rows] -= rate * self.m[rows] / (np.sqrt(self.v[rows]) + EPSILON)

    def lazy_adam(self, grad: Array, rows: npt.NDArray[np.int64]) -> None:
        self._adam(grad, rows)

    def rowwise_adam(self, grad: Array, rows: npt.NDArray[np.int64]) -> None:
        self.step += 1
        squares = np.stack([(grad[:, :-1] ** 2).mean(axis=1), grad[:, -1] ** 2], axis=1)
        self.row_v[rows] = BETA_2 * self.row_v[rows] + (1 - BETA_2) * squares[rows]
        rate = LEARNING_RATE * np.sqrt(1 - BETA_2**self.step) / (np.sqrt(self.row_v[rows]) + EPSILON)
        self.table[rows, :-1] -= rate[:, :1] * grad[rows, :-1]
        self.table[rows, -1] -= rate[:, 1] * grad[rows, -1]

    def adam(self, grad: Array, rows: npt.NDArray[np.int64]) -> None:
        self._adam(grad, slice(None))

    def adagrad(self, grad: Array, rows: npt.NDArray[np.int64]) -> None:
        self.accumulator += grad**2
        self.table -= LEARNING_RATE * grad / (np.sqrt(self.accumulator) + EPSILON)

    def sgd(self, grad: Array, rows: npt.NDArray[np.int64]) -> None:
        self.table -= LEARNING_RATE * grad


def batch_of_ids(rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draws ids: most are below 5 and repeat within the batch, the others come once in dozens of steps."""
    return np.where(rng.random(8) < 0.9, rng.integers(0, 5, 8), rng.integers(0, ROWS, 8))


@pytest.mark.parametrize("name", ["lazy_adam", "rowwise_adam", "adam", "adagrad", "sgd"])
def test_steps_equal_a_numpy_reference(name: str) -> None:
    rng = np.random.default_rng(7)
    start = [rng.normal(size=(ROWS, DIM)), rng.normal(size=(ROWS + 1, DIM))]
    tables = [tf.Variable(table, dtype=tf.float32) for table in start]
    references = [Reference(table) for table in start]
    optimizer = make_optimizer(OptimizerConfig(name=name, learning_rate=LEARNING_RATE))  # type: ignore[arg-type]

    @tf.function
    def step(ids: list[tf.Tensor], grads: list[tf.Tensor]) -> None:
        slices = [tf.IndexedSlices(g, i, tf.shape(t)) for g, i, t in zip(grads, ids, tables, strict=True)]
        optimizer.apply_gradients(zip(slices, tables, strict=True))

    for _ in range(STEPS):
        ids = [batch_of_ids(rng) for _ in tables]
        grads = [rng.normal(size=(8, DIM)) for _ in tables]
        step([tf.constant(i) for i in ids], [tf.constant(g, tf.float32) for g in grads])
        for reference, i, g in zip(references, ids, grads, strict=True):
            dense = np.zeros_like(reference.table)
            np.add.at(dense, i, g)
            update: Callable[..., None] = getattr(reference, name)
            update(dense, np.unique(i))
    for table, reference in zip(tables, references, strict=True):
        np.testing.assert_allclose(table.numpy(), reference.table, rtol=2e-4, atol=2e-5)


def test_lazy_adam_leaves_other_rows_and_their_moments_alone() -> None:
    table = tf.Variable(tf.ones([4, 2]))
    optimizer = LazyAdam(0.1)
    for row in (0, 0, 1):
        optimizer.apply_gradients([(tf.IndexedSlices(tf.ones([1, 2]), tf.constant([row]), (4, 2)), table)])
    moments = optimizer.get_slot(table, "moments").numpy()
    np.testing.assert_array_equal(table[2:], np.ones((2, 2)))
    np.testing.assert_allclose(moments[:, 0], [1 - BETA_1**2, 1 - BETA_1, 0, 0], rtol=1e-5)


@pytest.mark.parametrize("shape", [(), (2,), (3, 2)])
def test_lazy_adam_treats_a_dense_gradient_as_adam_does(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    start = rng.normal(size=shape).astype(np.float32)
    ours, theirs = tf.Variable(start), tf.Variable(start)
    optimizers = [(LazyAdam(0.1), ours), (tf.keras.optimizers.legacy.Adam(0.1), theirs)]
    for _ in range(5):
        gradient = tf.constant(rng.normal(size=shape), tf.float32)
        for optimizer, variable in optimizers:
            optimizer.apply_gradients([(gradient, variable)])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_only_a_tpu_has_an_optimizer_of_its_own_for_tables() -> None:
    assert make_embedding_optimizer(OptimizerConfig(), tf.distribute.get_strategy()) is None


@pytest.mark.parametrize("name", ["lazy_adam", "adam", "adagrad", "sgd"])
def test_each_optimizer_has_a_tpu_twin(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.model.optimizers.moves_tables_itself", lambda strategy: True)
    config = OptimizerConfig(name=name, learning_rate=0.25)  # type: ignore[arg-type]
    twin = make_embedding_optimizer(config, tf.distribute.get_strategy())
    assert type(twin).__name__.lower() in name.replace("_", "")
    assert twin.learning_rate == 0.25
    # On a TPU, Adam is lazy unless told otherwise.
    assert getattr(twin, "lazy_adam", None) == {"lazy_adam": True, "adam": False}.get(name)


def test_rowwise_adam_moves_a_scalar_as_adam_without_a_first_moment_does() -> None:
    ours, theirs = tf.Variable(1.0), tf.Variable(1.0)
    optimizers = [(RowwiseAdam(0.1), ours), (tf.keras.optimizers.legacy.Adam(0.1, beta_1=0.0), theirs)]
    for gradient in (1.0, -2.0, 0.5):
        for optimizer, variable in optimizers:
            optimizer.apply_gradients([(tf.constant(gradient), variable)])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
