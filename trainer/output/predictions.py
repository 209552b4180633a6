"""Calibrates a model on a split: the maps from logit to probability and value, and how well they fit."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipeline.manifest import Label
from trainer.data.dataset import Dataset
from trainer.data.reader import read_batches
from trainer.loop.evaluate import EVAL_BATCH_SIZE
from trainer.model.calibration import IDENTITY, Calibration, fit_logistic_map, fit_value_map, log_loss
from trainer.model.dot_bias import DotBias, dot_bias

# Two parameters are exact enough with far fewer; the fit takes about 90 bytes a row.
_ROWS_OF_A_FIT = 1 << 20

Array = npt.NDArray[np.float32]


class Calibrated(NamedTuple):
    """Holds the maps of a model and their part of `metrics.json`.

    `report` has the parameters and, before and after the maps, log loss in nats and accuracy; of a label on a scale,
    the RMSE before. `metrics` are those of the export: `accuracy`, and of a label on a scale `rmse` and `mae` in the
    units of its column. Without rows or labels, there are parameters alone.
    """

    maps: Calibration
    report: dict[str, Any]
    metrics: dict[str, float]


def calibrate(model: DotBias, data: Dataset, split: str) -> Calibrated:
    """Fit the maps to a sample of a split, and measure them on all of its rows.

    Each worker of a strategy reads all rows, so that all workers get the same maps.
    """
    label = data.manifest.label
    if label.column is None:
        # All rows are positive.
        maps = Calibration(IDENTITY, IDENTITY)
        return Calibrated(maps, {"scale": IDENTITY.scale, "offset": IDENTITY.offset}, {})
    to_fit, to_measure = predict(model, data, split), predict(model, data, split)
    if data.split(split).rows <= _ROWS_OF_A_FIT:
        to_fit, to_measure = itertools.tee(to_fit)
    logits, labels = _first_rows(to_fit, _ROWS_OF_A_FIT)
    probability = fit_logistic_map(logits, is_positive(labels, label))
    value = fit_value_map(logits, labels) if is_value(label) else IDENTITY
    maps = Calibration(probability, value)
    means = _mean_errors(to_measure, maps, label)
    report: dict[str, Any] = {"scale": probability.scale, "offset": probability.offset}
    report |= {name: means[name] for name in ("log_loss_before", "log_loss", "accuracy_before", "accuracy") if means}
    metrics = {"accuracy": means["accuracy"]} if means else {}
    if label.scale is not None and is_value(label):
        unit = label.scale[1] - label.scale[0]
        report |= {"value_scale": value.scale, "value_offset": value.offset}
        if means:
            report["rmse_before"] = unit * means["squared_before"] ** 0.5
            metrics |= {"rmse": unit * means["squared"] ** 0.5, "mae": unit * means["absolute"]}
    return Calibrated(maps, report, metrics)


def predict(model: DotBias, data: Dataset, split: str) -> Iterator[tuple[Array, Array]]:
    """Yield logits and labels of all rows of a split in the order of the files, each `[batch]`."""

    def logits_of(features: dict[str, tf.Tensor]) -> tf.Tensor:
        looked_up = {name: tf.gather(table, features[name]) for name, table in model.tables.items()}
        return dot_bias(looked_up, model.sides, model.bias)

    in_graph = tf.function(logits_of, autograph=False)
    for features, label in read_batches(data, split, EVAL_BATCH_SIZE):
        yield in_graph(features).numpy(), label.numpy()


def _first_rows(batches: Iterator[tuple[Array, Array]], rows: int) -> tuple[Array, Array]:
    """Join the first `rows` rows: a random sample, since the pipeline has shuffled the shards from its seed."""
    # The empty array is for a split without rows.
    logits, labels = [np.zeros(0, np.float32)], [np.zeros(0, np.float32)]
    left = rows
    for logit, label in batches:
        logits.append(logit[:left])
        labels.append(label[:left])
        left -= len(label)
        if left <= 0:
            break
    return np.concatenate(logits), np.concatenate(labels)


def _mean_errors(batches: Iterator[tuple[Array, Array]], maps: Calibration, label: Label) -> dict[str, float]:
    """Return means over all rows by name, values as shares of the scale; empty without rows."""
    sums: dict[str, float] = defaultdict(float)
    rows = 0
    for logits, labels in batches:
        positive = is_positive(labels, label)
        for name, map_ in (("_before", IDENTITY), ("", maps.probability)):
            probability = map_.apply(logits)
            sums[f"log_loss{name}"] += len(labels) * log_loss(probability, positive)
            # Positive where P(positive) is at least one half.
            sums[f"accuracy{name}"] += float(np.sum((probability >= 0.5) == positive))
        for name, map_ in (("_before", IDENTITY), ("", maps.value)):
            error = map_.apply(logits) - labels
            sums[f"squared{name}"] += float(np.sum(error**2))
            sums[f"absolute{name}"] += float(np.sum(np.abs(error)))
        rows += len(labels)
    return {name: total / rows for name, total in sums.items()}


def is_positive(labels: Array, label: Label) -> npt.NDArray[np.bool_]:
    """Return whether each label counts as positive, `[rows]`."""
    return labels >= np.float32(label.positive_at)


def is_value(label: Label) -> bool:
    """Return whether the label is a column on its scale; a label that is blended with a threshold is not."""
    return label.scale is not None and label.threshold is None
