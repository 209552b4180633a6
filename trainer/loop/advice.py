"""Advises what to change if the loss is finite but rises."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import tensorflow as tf

from pipeline.manifest import Split
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.loop.checkpoint import PeriodRecord
from trainer.model.dot_bias import log_odds

LOSS = "label-crossentropy"
# A healthy training stays below the loss of the mean label, and near its own best.
_TIMES_CONSTANT, _TIMES_BEST = 1.2, 2.0
# Added to the limit: near 0, a loss of several times the best is still small.
_MARGIN = 0.05
_log = logging.getLogger("trainer.train")


def constant_loss(labels: Split, train: Split) -> float:
    """Compute the mean cross-entropy of a split's labels if each row is predicted the mean label of the train split.

    For the train split, this is the entropy of its mean label.
    """
    logit, mean = log_odds(train), labels.label_mean or 0.0
    return math.log1p(math.exp(-abs(logit))) + max(logit, 0.0) - mean * logit


def advice(
    split: str,
    loss: float,
    before: Sequence[float],
    constant: float,
    *,
    learning_rate: float,
    l2: float,
    unit: str = "epoch",
) -> str | None:
    """Say what to do about the loss of the last period; None if nothing is wrong with it.

    Args:
        split: `train` or `eval`.
        loss: the mean cross-entropy of the last period.
        before: losses of the periods before it, in order.
        constant: see `constant_loss`.
        learning_rate: as configured.
        l2: as configured.
        unit: what a period is called, see `data.periods`.
    """
    if _clearly_above(loss, _TIMES_CONSTANT * constant):
        found = f"predicting the mean label alone would give {constant:.4f}"
    elif before and _clearly_above(loss, _TIMES_BEST * min(before)):
        found = f"that is {loss / min(before):.1f} times that of the best {unit}"
    else:
        return None
    history = f" ({unit} 1: {before[0]:.4f}, best: {min(before):.4f})" if before else ""
    if split == "train":
        change = "The steps are too large: try a tenth of `trainer.optimizer.learning_rate`"
    else:
        change = "The model overfits the train rows: try a larger `trainer.l2`, or a smaller learning rate"
    return (
        f"{unit.capitalize()} {len(before) + 1}: the {split} cross-entropy is {loss:.4f}{history}, but {found}. "
        f"{change}. Now: learning rate {learning_rate:.3g}, l2 {l2:.3g}."
    )


def _clearly_above(loss: float, reference: float) -> bool:
    return loss > reference + _MARGIN


class AdviseOnLoss(tf.keras.callbacks.Callback):
    """Logs `advice` as a warning, once; the train loss comes first, since a bad eval loss follows from it.

    Args:
        before: records of the periods before the one that ends.
        data: the dataset.
        config: with automatic values filled in.
        unit: what a period is called.
    """

    def __init__(self, before: Sequence[PeriodRecord], data: Dataset, config: TrainerConfig, unit: str) -> None:
        super().__init__()
        assert config.optimizer.learning_rate is not None and config.l2 is not None
        self._before = before
        train = data.split("train")
        self._constant = {split: constant_loss(data.split(split), train) for split in ("train", "eval")}
        self._options = {"learning_rate": config.optimizer.learning_rate, "l2": config.l2}
        self._unit = unit
        self._advised = False

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        for split, name in (("train", LOSS), ("eval", f"val_{LOSS}")):
            if self._advised or name not in (logs or {}):
                continue
            before = [getattr(record, split)[LOSS] for record in self._before]
            loss = float((logs or {})[name])
            text = advice(split, loss, before, self._constant[split], unit=self._unit, **self._options)
            if text is not None:
                _log.warning("%s", text)
                self._advised = True
