"""Runs `steps_per_execution` steps of training or evaluation in one graph, as Keras does, at less cost.

Keras has AutoGraph rewrite the step, which takes longer than tracing it; traces it twice, because the results of a loop
need a value before it; and computes the metrics after each step, although only those after the last one are seen.
Metrics take many small operations, a fifth of a step of 256 rows. So training can also collect what they take, and
update them once for all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs
from tensorflow.python.framework.func_graph import dismantle_func_graph

from trainer.devices.tpu import is_tpu

Outputs = dict[str, tf.Tensor]
Step = Callable[[Any], tuple[tf.Tensor, Outputs]]
Run = Callable[[Any], dict[str, tf.Tensor]]


class ModelOfManySteps(tfrs.models.Model):
    """Trains and evaluates on what `compute_loss` returns. The `loss` among the metrics is that of the last step.

    On a TPU, which nobody has run this on, the functions are those of Keras.
    """

    # What the task takes to update its metrics: names of outputs float32 `[batch, 1]`. Empty: it cannot be collected.
    collected: tuple[str, ...] = ()
    # Whether to collect it. The rows of all steps are then in memory at once.
    measures_steps_together = False
    train_function: Run | None
    test_function: Run | None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # In a tuple, since Keras would look for layers in a list.
        self._graphs: tuple[Any, ...] = ()

    def make_train_function(self, force: bool = False) -> Run:
        """Return the function that `fit` calls with an iterator."""
        if is_tpu(self.distribute_strategy):
            return super().make_train_function(force)
        if self.train_function is None or force:
            # Each replica has metrics of its own, which it updates in its step.
            alone = self.distribute_strategy.num_replicas_in_sync == 1
            together = self.collected if alone and self.measures_steps_together else ()
            self.train_function = self._in_loop(
                self._learn_only if together else self._learn, self._train_counter, together
            )
        return self.train_function

    def make_test_function(self, force: bool = False) -> Run:
        """Return the function that `evaluate` calls with an iterator."""
        if is_tpu(self.distribute_strategy):
            return super().make_test_function(force)
        if self.test_function is None or force:
            self.test_function = self._in_loop(self._measure, self._test_counter)
        return self.test_function

    def release(self) -> None:
        """Let go of the variables, so that they are freed with the model; it cannot be trained or evaluated again.

        TensorFlow keeps the gradients that `tf.custom_gradient` makes for good, with the graphs that they are from and
        all variables that these use.
        """
        self.train_function = self.test_function = None
        for graph in self._graphs:
            dismantle_func_graph(graph)
            # The graph has a list of its variables besides, which it makes anew when it is asked for it.
            _ = graph.captures
        self._graphs = ()

    def get_metrics_result(self) -> dict[str, tf.Tensor]:
        """Return nothing: Keras would compute all metrics once more, although the functions above return them."""
        return {}

    def loss_and_outputs(self, batch: Any) -> tuple[tf.Tensor, Outputs]:
        """Return the loss in training, and the outputs `collected`, without an update of the metrics."""
        raise NotImplementedError

    def _learn(self, batch: Any) -> tuple[tf.Tensor, Outputs]:
        with tf.GradientTape() as tape:
            loss = self.compute_loss(batch, training=True)
        self._apply(tape, loss)
        return loss, {}

    def _learn_only(self, batch: Any) -> tuple[tf.Tensor, Outputs]:
        with tf.GradientTape() as tape:
            loss, outputs = self.loss_and_outputs(batch)
        self._apply(tape, loss)
        return loss, outputs

    def _apply(self, tape: tf.GradientTape, loss: tf.Tensor) -> None:
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))

    def _measure(self, batch: Any) -> tuple[tf.Tensor, Outputs]:
        return self.compute_loss(batch, training=False), {}

    def _in_loop(self, step: Step, counter: tf.Variable, collected: tuple[str, ...] = ()) -> Run:
        strategy = self.distribute_strategy

        def run(iterator: Any) -> Mapping[str, tf.Tensor]:
            # Keras lowers it for the last call of an epoch.
            steps = self._steps_per_execution.read_value()
            self._graphs += (tf.compat.v1.get_default_graph(),)

            def body(done: tf.Tensor, _: tf.Tensor, *arrays: tf.TensorArray) -> tuple[Any, ...]:
                self._graphs += (tf.compat.v1.get_default_graph(),)
                losses, outputs = strategy.run(step, args=(iterator.get_next(),))
                written = (
                    array.write(tf.cast(done, tf.int32), outputs[name])
                    for name, array in zip(collected, arrays, strict=True)
                )
                return done + 1, strategy.experimental_local_results(losses)[0], *written

            size = tf.cast(steps, tf.int32)
            # The last batch of an epoch is smaller.
            arrays = [tf.TensorArray(tf.float32, size, infer_shape=False, element_shape=[None, 1]) for _ in collected]
            _, loss, *arrays = tf.while_loop(
                lambda done, *_: done < steps, body, (tf.zeros_like(steps), tf.constant(0.0), *arrays)
            )
            if collected:
                self.task(**{name: array.concat() for name, array in zip(collected, arrays, strict=True)})
            counter.assign_add(steps)
            return {"loss": loss, **{metric.name: metric.result() for metric in self.metrics}}

        # The decorator keeps Keras from rewriting the layers that the step calls, too.
        return tf.function(tf.autograph.experimental.do_not_convert(run), autograph=False, reduce_retracing=True)
