"""Defines the model: a dot product plus biases, trained on logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_recommenders as tfrs
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

from pipeline.manifest import Side, Split
from trainer.data.dataset import Dataset
from trainer.data.reader import Append, Batch
from trainer.model.calibration import Calibration
from trainer.model.steps import ModelOfManySteps, Outputs

# With this many, AUC is within 0.001 of the exact value and PR-AUC within 0.003, down to 0.05 % positives.
_AUC_THRESHOLDS = 4000


def log_odds(split: Split) -> float:
    """Return log(p / (1 - p)) of a split's mean label; half a row of each class is added, so that it is finite."""
    p = ((split.label_mean or 0) * split.rows + 0.5) / (split.rows + 1)
    return math.log(p / (1 - p))


def dot_bias(
    embeddings: Mapping[str, tf.Tensor], sides: Mapping[str, Side], bias: tf.Tensor, *, training: bool = False
) -> tf.Tensor:
    """Compute logit = <u[:-1], v[:-1]> + u[-1] + v[-1] + b, `[batch]`.

    Args:
        embeddings: `[batch, dim]` by feature; the last unit is the id's bias.
        sides: `user` or `item` by feature; u is the sum over the features of the user side, v of the item side.
        bias: b, scalar.
        training: whether the gradient is needed; TensorFlow keeps a graph with a gradient of one's own for good.
    """
    user, item = (tf.add_n([embeddings[f] for f in sorted(sides) if sides[f] == side]) for side in ("user", "item"))
    return (_with_gradient if training else _dot_and_biases)(user, item) + bias


def _dot_and_biases(user: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(user * item, axis=1) - user[:, -1] * item[:, -1] + user[:, -1] + item[:, -1]


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _with_gradient(user: tf.Tensor, item: tf.Tensor) -> Any:
    """Compute <u[:-1], v[:-1]> + u[-1] + v[-1], `[batch]`, and its gradient.

    The gradient is written out, because TensorFlow's gradient of a slice is a whole array padded with zeros, which
    takes a tenth of a step.
    """
    bias_unit = tf.one_hot([user.shape[1] - 1], user.shape[1])

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        by_row = upstream[:, tf.newaxis]
        return tuple(by_row * (other * (1 - bias_unit) + bias_unit) for other in (item, user))

    return _dot_and_biases(user, item), gradient


def apply_map(logit: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Apply a `calibration.LogisticMap` in TensorFlow: P(positive) or the expected label, `[batch]`."""
    return tf.sigmoid(scale * logit + offset)


class _HardLabels:
    """Turns soft labels into hard ones for a metric: positive where the label is at least `positive_at`."""

    def __init__(self, *args: Any, positive_at: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Rounded to float32 like the labels, so that a label at the threshold compares equal.
        self._positive_at = float(np.float32(positive_at))

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> Any:
        positive = tf.cast(y_true >= self._positive_at, tf.float32)
        return super().update_state(positive, y_pred, sample_weight)  # type: ignore[misc]


class _AUC(_HardLabels, tf.keras.metrics.AUC):
    """Takes logits, and places its thresholds around `center`, the log-odds of the train labels.

    Keras spaces thresholds evenly in probability: with rare positives, nearly all rows would fall between two of them.
    Half the distance to the center keeps rows apart that are far above it.
    """

    def __init__(self, *args: Any, center: float, **kwargs: Any) -> None:
        super().__init__(*args, from_logits=True, **kwargs)
        self._center = center

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> Any:
        return super().update_state(y_true, (y_pred - self._center) / 2, sample_weight)


class _Accuracy(_HardLabels, tf.keras.metrics.BinaryAccuracy):
    pass


class _MeanProbability(tf.keras.metrics.Mean):
    def update_state(self, values: tf.Tensor, sample_weight: tf.Tensor | None = None) -> Any:
        return super().update_state(tf.sigmoid(values), sample_weight)


def ranking_task(positive_at: float, center: float) -> tfrs.tasks.Ranking:
    """Make the task: binary cross-entropy of logits against labels in [0, 1], and metrics that take logits too.

    `center` is the log-odds of the train labels.
    """
    auc = {"num_thresholds": _AUC_THRESHOLDS, "center": center, "positive_at": positive_at}
    return tfrs.tasks.Ranking(
        # A sum, because only a sum means the same on every replica; `compute_loss` divides it.
        loss=tf.keras.losses.BinaryCrossentropy(from_logits=True, reduction=tf.keras.losses.Reduction.SUM),
        metrics=[
            tf.keras.metrics.BinaryCrossentropy(from_logits=True, name="label-crossentropy"),
            _AUC(curve="ROC", name="auc", **auc),
            _AUC(curve="PR", name="pr-auc", **auc),
            # A logit of 0 is a probability of one half.
            _Accuracy(threshold=0.0, positive_at=positive_at, name="accuracy"),
        ],
        prediction_metrics=[_MeanProbability(name="prediction_mean")],
        label_metrics=[tf.keras.metrics.Mean(name="label_mean")],
    )


class DotBias(ModelOfManySteps):
    """Computes logits float32 `[batch]` of features `{name: int32 [batch]}`; trained on `(features, label)` batches.

    Args:
        sides: `user` or `item` by feature, at least one of each.
        feature_configs: the tables, see `tables.feature_configs`.
        initial_bias: where b starts: the log-odds of the training labels.
        positive_at: the label from which a row is positive, for AUC, PR-AUC and accuracy.
        l2: strength of the penalty, see `penalty`.
        bias_l2_factor: how many times as strong it is for the bias unit.
        l2_weights: by feature, float32 `[table rows]`.
        embedding_optimizer: a TPU's own, else None.
        sparse_core: options of a TPU's SparseCores, see `devices.tpu.sparse_core_config`.
    """

    # Appends further ids that `compute_loss` needs to each batch, see `softmax.SoftmaxDotBias`.
    append: Append | None = None
    collected: tuple[str, ...] = ("labels", "predictions")

    def __init__(
        self,
        sides: Mapping[str, Side],
        feature_configs: Mapping[str, tf.tpu.experimental.embedding.FeatureConfig],
        *,
        initial_bias: float,
        positive_at: float,
        l2: float = 0.0,
        bias_l2_factor: float = 1.0,
        l2_weights: Mapping[str, npt.NDArray[np.float32]] | None = None,
        embedding_optimizer: Any = None,
        sparse_core: Any = None,
    ) -> None:
        super().__init__()
        # Metrics are summed over replicas already; Keras would sum them again.
        self.distribute_reduction_method = "first"
        self.sides = dict(sides)
        self.embedding = tfrs.layers.embedding.TPUEmbedding(
            dict(feature_configs), optimizer=embedding_optimizer, sparse_core_embedding_config=sparse_core
        )
        # Makes the tables.
        if embedding_optimizer is None:
            with tf.variable_creator_scope(_keep_text_local):
                _ = self.tables
        else:
            self.embedding.build({name: tf.TensorShape(of.output_shape) for name, of in feature_configs.items()})
        self.bias = tf.Variable(initial_bias, dtype=tf.float32, name="bias")
        # logit -> P(positive) and expected label; labels may be soft, so these differ. The identity until fitted on the
        # eval split.
        self.calibration_scale = tf.Variable(1.0, trainable=False, name="calibration_scale")
        self.calibration_offset = tf.Variable(0.0, trainable=False, name="calibration_offset")
        self.value_scale = tf.Variable(1.0, trainable=False, name="value_scale")
        self.value_offset = tf.Variable(0.0, trainable=False, name="value_offset")
        self.task = ranking_task(positive_at, initial_bias)
        self._l2 = l2
        self._bias_l2_factor = bias_l2_factor
        # They can be computed again, so checkpoints leave them out.
        self._l2_weights = Untracked(
            {name: tf.Variable(weights, trainable=False) for name, weights in (l2_weights or {}).items()} if l2 else {}
        )

    @property
    def tables(self) -> dict[str, tf.Variable]:
        """Return the embedding tables by feature, `[rows, dim]`; not on a TPU with embedding hardware."""
        return {config.name: table for config, table in self.embedding.embedding_tables.items()}

    def folded(self, name: str) -> tf.Tensor:
        """Return the table of a feature as `dot_bias` and the export need it, `[rows, dim]`."""
        return self.tables[name].read_value()

    def fold(self, data: Dataset) -> None:
        """Replace the tables by those of `folded`, to be called once, after training; here they are the same."""

    def set_calibration(self, maps: Calibration) -> None:
        self.calibration_scale.assign(maps.probability.scale)
        self.calibration_offset.assign(maps.probability.offset)
        self.value_scale.assign(maps.value.scale)
        self.value_offset.assign(maps.value.offset)

    def call(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return dot_bias(self.embedding(dict(features)), self.sides, self.bias)

    def penalty(
        self, features: Mapping[str, tf.Tensor], embeddings: Mapping[str, tf.Tensor], weight: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Return l2 * sum over rows and features of weight * (|vector| ** 2 + bias_l2_factor * bias ** 2): scalar.

        `weight` `[batch]` weighs the rows; None: 1 each.
        """
        terms = [
            tf.gather(weights, features[name]) * self._squared_length(embeddings[name])
            for name, weights in self._l2_weights.values.items()
        ]
        if not terms:
            return tf.constant(0.0)
        by_row = tf.add_n(terms)
        return self._l2 * tf.reduce_sum(by_row if weight is None else weight * by_row)

    def _squared_length(self, embedding: tf.Tensor) -> tf.Tensor:
        """Sum the squares, `[batch, dim]` -> `[batch]`, with the bias unit `bias_l2_factor` times."""
        by_unit = tf.constant([1.0] * (embedding.shape[1] - 1) + [self._bias_l2_factor])
        return tf.linalg.matvec(tf.square(embedding), by_unit)

    def compute_loss(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """Return the mean cross-entropy and, in training, penalty over the rows of the batch on all replicas.

        Rows of weight 0, which fill a batch up to its shape, do not count.
        """
        return self._loss(inputs, training, compute_metrics=True)[0]

    def loss_and_outputs(self, batch: Batch) -> tuple[tf.Tensor, Outputs]:
        return self._loss(batch, training=True, compute_metrics=False)

    def _loss(self, inputs: Batch, training: bool, compute_metrics: bool) -> tuple[tf.Tensor, Outputs]:
        features, label, weight = inputs if len(inputs) == 3 else (*inputs, None)
        embeddings = self.embedding(dict(features))
        logit = dot_bias(embeddings, self.sides, self.bias, training=training)
        # `[batch, 1]`: Keras' losses take the mean over the last axis first.
        outputs = {"labels": label[:, tf.newaxis], "predictions": logit[:, tf.newaxis]}
        loss = self.task(**outputs, sample_weight=weight, compute_metrics=compute_metrics)
        if training:
            loss += self.penalty(features, embeddings, weight)
        rows = tf.size(label, out_type=tf.int32) if weight is None else tf.reduce_sum(weight)
        # Gradients are summed over replicas, whose batches can differ in size.
        return loss / tf.maximum(over_replicas(tf.cast(rows, tf.float32)), 1.0), outputs


def over_replicas(value: tf.Tensor) -> tf.Tensor:
    """Sum a scalar over all replicas of all workers."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def _keep_text_local(next_creator: Callable[..., tf.Variable], **arguments: Any) -> tf.Variable:
    """Make variables of type string outside of the strategy; a variable creator for `tf.variable_creator_scope`.

    On CPU and GPU the embedding layer has one, a mark for loading checkpoints of a TPU. Workers give each other the
    initial values of all variables, and cannot do so with text.
    """
    if arguments.get("dtype") != tf.string:
        return next_creator(**arguments)
    return ResourceVariable(
        arguments["initial_value"], trainable=False, dtype=tf.string, name=arguments.get("name"), shape=[]
    )


class Untracked:
    """Hides variables from Keras, which looks for them in attributes, lists and dictionaries."""

    def __init__(self, values: dict[str, tf.Variable]) -> None:
        self.values = values
