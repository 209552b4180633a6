"""What a model says of the rows of a split, and what is measured on that: the map to probabilities, errors in units."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipeline.manifest import Label
from trainer.data.dataset import Dataset
from trainer.data.reader import read_batches
from trainer.loop.evaluate import EVAL_BATCH_SIZE
from trainer.model.calibration import IDENTITY, Calibration, LogisticMap, fit_logistic_map, fit_value_map, log_loss
from trainer.model.dot_bias import DotBias, dot_bias


class Predictions(NamedTuple):
    """Of all rows of a split, in the order of the files: 8 bytes a row.

    `logits` and `labels`, in [0, 1], are float32 `[rows]`.
    """

    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]


def predict_split(model: DotBias, data: Dataset, split: str) -> Predictions:
    """Each worker of a strategy reads all rows, so that all of them know the same."""

    def logits_of(features: dict[str, tf.Tensor]) -> tf.Tensor:
        looked_up = {name: tf.gather(table, features[name]) for name, table in model.tables.items()}
        return dot_bias(looked_up, model.sides, model.bias)

    in_graph = tf.function(logits_of)
    # The empty array is for a split without rows.
    logits, labels = [np.zeros(0, np.float32)], [np.zeros(0, np.float32)]
    for features, label in read_batches(data, split, EVAL_BATCH_SIZE):
        logits.append(in_graph(features).numpy())
        labels.append(label.numpy())
    return Predictions(np.concatenate(logits), np.concatenate(labels))


def calibrate(predictions: Predictions, label: Label) -> tuple[Calibration, dict[str, Any]]:
    """The logistic maps, and what `metrics.json` says of them.

    That is log loss in nats and accuracy before and after, and of a label on a scale, the RMSE before.
    """
    logits, positive = predictions.logits, predictions.labels >= np.float32(label.positive_at)
    fitted = fit_logistic_map(logits, positive)
    report: dict[str, Any] = {"scale": fitted.scale, "offset": fitted.offset}
    if len(positive):
        before, after = IDENTITY.apply(logits), fitted.apply(logits)
        report |= {"log_loss_before": log_loss(before, positive), "log_loss": log_loss(after, positive)}
        report |= {"accuracy_before": _accuracy(before, positive), "accuracy": _accuracy(after, positive)}
    if not _is_value(label):
        return Calibration(fitted, IDENTITY), report
    to_value = fit_value_map(logits, predictions.labels)
    report |= {"value_scale": to_value.scale, "value_offset": to_value.offset}
    if errors := errors_on_scale(predictions, label, IDENTITY):
        report["rmse_before"] = errors["rmse"]
    return Calibration(fitted, to_value), report


def _is_value(label: Label) -> bool:
    """Whether the label is a column on its scale; one that is blended with a threshold is no measurement on any."""
    return label.scale is not None and label.threshold is None


def _accuracy(probability: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float:
    """The share of rows that are positive where P(positive) is at least one half, and negative elsewhere."""
    return float(((probability >= 0.5) == positive).mean())


def errors_on_scale(predictions: Predictions, label: Label, to_value: LogisticMap) -> dict[str, float]:
    """`rmse` and `mae` in the units of the label's column; empty unless the label is that column on a scale."""
    if label.scale is None or not _is_value(label) or not len(predictions.labels):
        return {}
    low, high = label.scale
    error = (high - low) * (to_value.apply(predictions.logits) - predictions.labels)
    return {"rmse": float(np.sqrt(np.mean(error**2))), "mae": float(np.mean(np.abs(error)))}
