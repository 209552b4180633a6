"""Optimizers whose step costs what the batch looks up, not what the tables hold."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from trainer.config import OptimizerConfig
from trainer.strategy import is_tpu


class LazyAdam(tf.keras.optimizers.legacy.Adam):
    """Adam that, of an embedding table, moves only the rows that a batch looks up, with their moments.

    `legacy.Adam` lets the moments of every row decay at every step and moves every row by what is left of its momentum,
    so that a step sweeps three whole tables. Here a row's moments stay as they are until it is looked up again; bias
    correction goes by the global step, as in `tf.tpu.experimental.embedding.Adam` and TensorFlow Addons' LazyAdam.
    Variables with dense gradients are treated by Adam itself.
    """

    def __init__(self, learning_rate: float = 0.001, name: str = "LazyAdam", **kwargs: Any) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)

    def _resource_apply_sparse(
        self, grad: tf.Tensor, var: tf.Variable, indices: tf.Tensor, apply_state: Any = None
    ) -> tf.Operation:
        """`grad` is `[n, dim]`, `indices` `[n]`: unique, the base class has summed the gradients of repeated ids."""
        key = (var.device, var.dtype.base_dtype)
        c = (apply_state or {}).get(key) or self._fallback_apply_state(*key)
        m, v = self.get_slot(var, "m"), self.get_slot(var, "v")
        m_rows = c["beta_1_t"] * tf.gather(m, indices) + c["one_minus_beta_1_t"] * grad
        v_rows = c["beta_2_t"] * tf.gather(v, indices) + c["one_minus_beta_2_t"] * tf.square(grad)
        step = c["lr"] * m_rows / (tf.sqrt(v_rows) + c["epsilon"])
        return tf.group(
            m.scatter_update(tf.IndexedSlices(m_rows, indices)),
            v.scatter_update(tf.IndexedSlices(v_rows, indices)),
            var.scatter_sub(tf.IndexedSlices(step, indices)),
        )


def make_optimizer(config: OptimizerConfig) -> tf.keras.optimizers.legacy.Optimizer:
    """The Keras optimizer: of all variables on a CPU or GPU, of those outside the embedding tables on a TPU."""
    legacy = tf.keras.optimizers.legacy
    classes = {"lazy_adam": LazyAdam, "adam": legacy.Adam, "adagrad": legacy.Adagrad, "sgd": legacy.SGD}
    return classes[config.name](learning_rate=config.learning_rate)


def make_embedding_optimizer(config: OptimizerConfig, strategy: tf.distribute.Strategy) -> Any:
    """The optimizer of the tables: its own on a TPU, None elsewhere, where the Keras optimizer moves them.

    On a CPU or GPU the layer would only make slots for it that nothing updates.
    """
    if not is_tpu(strategy):
        return None
    embedding = tf.tpu.experimental.embedding
    learning_rate = config.learning_rate
    if config.name in ("lazy_adam", "adam"):
        # Where the Keras optimizers put epsilon: outside of the root.
        return embedding.Adam(learning_rate, epsilon=1e-7, lazy_adam=config.name == "lazy_adam", sum_inside_sqrt=False)
    return {"adagrad": embedding.Adagrad, "sgd": embedding.SGD}[config.name](learning_rate)
