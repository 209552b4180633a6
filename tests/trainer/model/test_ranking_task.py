"""Compares AUC and PR-AUC in training with scikit-learn, also where positives are rare."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import average_precision_score, roc_auc_score

from trainer.model.dot_bias import ranking_task

ROWS = 400_000


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.001, 0.0005])
@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_areas_are_exact_for_frequent_and_for_rare_positives(share: float, spread: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=ROWS) * spread
    offsets = np.linspace(-20, 20, 2001)
    # The mean probability rises with the offset.
    means = [np.mean(1 / (1 + np.exp(-(logits[:20_000] + offset)))) for offset in offsets]
    logits = (logits + offsets[np.searchsorted(means, share)]).astype(np.float32)
    labels = (rng.random(ROWS) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    mean = labels.mean()
    task = ranking_task(positive_at=1.0, center=float(np.log(mean / (1 - mean))))
    metrics = {metric.name: metric for metric in task.metrics}
    for start in range(0, ROWS, 1 << 17):
        part = slice(start, start + (1 << 17))
        for name in ("auc", "pr-auc"):
            metrics[name].update_state(tf.constant(labels[part, None]), tf.constant(logits[part, None]))
    assert float(metrics["auc"].result()) == pytest.approx(roc_auc_score(labels, logits), abs=1e-3)
    assert float(metrics["pr-auc"].result()) == pytest.approx(average_precision_score(labels, logits), abs=3e-3)
