"""Makes optimizers whose step costs as much as the batch looks up, not as much as the tables hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from pipeline.manifest import DotbiasError
from trainer.config import OptimizerConfig
from trainer.devices.tpu import moves_tables_itself


class LazyAdam(tf.keras.optimizers.legacy.Adam):
    """Moves, as Adam, only the rows of an embedding table that a batch looks up, with their moments.

    `legacy.Adam` lets the moments of every row decay at every step and moves every row by what is left of its momentum,
    so that a step sweeps three whole tables. Here a row's moments stay as they are until it is looked up again; bias
    correction goes by the global step, as in `tf.tpu.experimental.embedding.Adam` and TensorFlow Addons' LazyAdam.
    Variables with dense gradients are treated as by Adam.

    The first and the second moments of a row lie side by side in one slot, `moments`, of twice the variable's width:
    one gather and one scatter a step for both. New values replace old ones (`scatter_update` copies rows), since
    `scatter_sub` takes several times as long on a CPU.
    """

    def __init__(self, learning_rate: float = 0.001, name: str = "LazyAdam", **kwargs: Any) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)

    def _create_slots(self, var_list: Sequence[tf.Variable]) -> None:
        for var in var_list:
            *outer, width = var.shape if var.shape.rank else [1]
            self.add_slot(var, "moments", "zeros", shape=[*outer, 2 * width])

    def _resource_apply_sparse(
        self, grad: tf.Tensor, var: tf.Variable, indices: tf.Tensor, apply_state: Any = None
    ) -> tf.Operation:
        """Move the rows `indices` `[n]` by `grad` `[n, dim]`; the base class has summed gradients of repeated ids."""
        slot = self.get_slot(var, "moments")
        step, moments = self._step(grad, tf.gather(slot, indices), var, apply_state)
        rows = tf.gather(var, indices) - step
        return tf.group(
            slot.scatter_update(tf.IndexedSlices(moments, indices)),
            var.scatter_update(tf.IndexedSlices(rows, indices)),
        )

    def _resource_apply_dense(self, grad: tf.Tensor, var: tf.Variable, apply_state: Any = None) -> tf.Operation:
        slot = self.get_slot(var, "moments")
        step, moments = self._step(tf.reshape(grad, [*slot.shape[:-1], -1]), slot, var, apply_state)
        return tf.group(slot.assign(moments), var.assign_sub(tf.reshape(step, var.shape)))

    def _step(
        self, grad: tf.Tensor, moments: tf.Tensor, var: tf.Variable, apply_state: Any
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the step to subtract, as wide as `grad`, and the new moments, twice as wide."""
        key = (var.device, var.dtype.base_dtype)
        c = (apply_state or {}).get(key) or self._fallback_apply_state(*key)
        m, v = tf.split(moments, 2, axis=-1)
        m += c["one_minus_beta_1_t"] * (grad - m)
        v += c["one_minus_beta_2_t"] * (tf.square(grad) - v)
        return c["lr"] * m / (tf.sqrt(v) + c["epsilon"]), tf.concat([m, v], axis=-1)


class RowwiseAdam(tf.keras.optimizers.legacy.Adam):
    """Keeps two numbers for each row of an embedding table: the second moments of its vector and of its bias.

    It moves rows as `LazyAdam` does, but without a first moment, and a vector has the mean of its squared gradients in
    place of one number a unit, as in DLRM's row-wise optimizers (M. Naumov et al., "Deep Learning Recommendation Model
    for Personalization and Recommendation Systems", 2019). The last unit of a row is the bias, whose gradients are
    larger.
    """

    def __init__(self, learning_rate: float = 0.001, name: str = "RowwiseAdam", **kwargs: Any) -> None:
        super().__init__(learning_rate=learning_rate, beta_1=0.0, name=name, **kwargs)

    def _create_slots(self, var_list: Sequence[tf.Variable]) -> None:
        for var in var_list:
            self.add_slot(var, "moments", "zeros", shape=[var.shape[0], 2] if var.shape.rank else [])

    def _resource_apply_sparse(
        self, grad: tf.Tensor, var: tf.Variable, indices: tf.Tensor, apply_state: Any = None
    ) -> tf.Operation:
        """Move the rows `indices` `[n]` by `grad` `[n, dim]`; the base class has summed gradients of repeated ids."""
        slot = self.get_slot(var, "moments")
        squares = tf.square(grad)
        squares = tf.stack([tf.reduce_mean(squares[:, :-1], axis=1), squares[:, -1]], axis=1)
        step, moments = self._step(squares, tf.gather(slot, indices), var, apply_state)
        width = int(var.shape[1])
        rows = tf.gather(var, indices) - grad * tf.repeat(step, [width - 1, 1], axis=1)
        return tf.group(
            slot.scatter_update(tf.IndexedSlices(moments, indices)),
            var.scatter_update(tf.IndexedSlices(rows, indices)),
        )

    def _resource_apply_dense(self, grad: tf.Tensor, var: tf.Variable, apply_state: Any = None) -> tf.Operation:
        if var.shape.rank:
            return self._resource_apply_sparse(grad, var, tf.range(var.shape[0]), apply_state)
        slot = self.get_slot(var, "moments")
        step, moment = self._step(tf.square(grad), slot, var, apply_state)
        return tf.group(slot.assign(moment), var.assign_sub(grad * step))

    def _step(
        self, squares: tf.Tensor, moments: tf.Tensor, var: tf.Variable, apply_state: Any
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return what to multiply the gradient by, and the new moments, both shaped like `squares`."""
        key = (var.device, var.dtype.base_dtype)
        c = (apply_state or {}).get(key) or self._fallback_apply_state(*key)
        moments = moments + c["one_minus_beta_2_t"] * (squares - moments)
        return c["lr"] / (tf.sqrt(moments) + c["epsilon"]), moments


def make_optimizer(config: OptimizerConfig) -> tf.keras.optimizers.legacy.Optimizer:
    """Make the Keras optimizer: for all variables on a CPU or GPU, for those outside the tables on a TPU."""
    legacy = tf.keras.optimizers.legacy
    classes = {
        "lazy_adam": LazyAdam,
        "rowwise_adam": RowwiseAdam,
        "adam": legacy.Adam,
        "adagrad": legacy.Adagrad,
        "sgd": legacy.SGD,
    }
    return classes[config.name](learning_rate=_learning_rate(config))


def make_embedding_optimizer(config: OptimizerConfig, strategy: tf.distribute.Strategy) -> Any:
    """Make the optimizer of tables on a TPU's embedding hardware; None elsewhere, where the Keras optimizer moves them.

    There the layer would only make slots for it that nothing updates.
    """
    if not moves_tables_itself(strategy):
        return None
    if config.name == "rowwise_adam":
        raise DotbiasError("A TPU has no `trainer.optimizer.name: rowwise_adam`; take lazy_adam, adam, adagrad or sgd.")
    embedding = tf.tpu.experimental.embedding
    learning_rate = _learning_rate(config)
    if config.name in ("lazy_adam", "adam"):
        # Where the Keras optimizers put epsilon: outside of the root.
        return embedding.Adam(learning_rate, epsilon=1e-7, lazy_adam=config.name == "lazy_adam", sum_inside_sqrt=False)
    return {"adagrad": embedding.Adagrad, "sgd": embedding.SGD}[config.name](learning_rate)


def _learning_rate(config: OptimizerConfig) -> float:
    if config.learning_rate is None:
        raise ValueError("`learning_rate` should be known here; see `loop.defaults.with_automatic_values`.")
    return config.learning_rate
