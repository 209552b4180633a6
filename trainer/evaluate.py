"""Metrics of a model on a split."""

from __future__ import annotations

from trainer.dataset import Dataset
from trainer.input_pipeline import read_batches
from trainer.model import DotBias

# The metrics of the design, by name.
METRICS = ("label-crossentropy", "auc", "pr-auc", "accuracy", "prediction_mean", "label_mean")
# Without gradients and moments, more rows fit at a time.
EVAL_BATCH_SIZE = 1 << 16


def evaluate(model: DotBias, data: Dataset, split: str) -> dict[str, float]:
    """The metrics over all rows of a split; empty for a split without rows."""
    if not data.split(split).rows:
        return {}
    logs = model.evaluate(read_batches(data, split, EVAL_BATCH_SIZE), return_dict=True, verbose=0)
    return {name: float(logs[name]) for name in METRICS}
