"""Compares several encodings of the same log on the same eval rows.

```
<run>/compare_encodings/datasets/<name>/            by the pipeline; variants that differ only in the trainer share one
<run>/compare_encodings/variants/<name>/model/      by the trainer, without checkpoints
<run>/compare_encodings/variants/<name>/probabilities.npy   float32, for the eval rows
<run>/compare_encodings/variants/<name>/variant.json        `MeasuredVariant`; written last
<run>/compare_encodings/comparison.json             `Comparison`
```

This module needs neither Beam nor TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from dotbias.evaluation.measure.bootstrap import CORE, interval, num_resamples, resampled
from dotbias.evaluation.measure.metrics import Positive, Probabilities, all_metrics
from dotbias.evaluation.measure.slices import Grouping, train_counts
from dotbias.evaluation.results import Estimate
from dotbias.evaluation.rows import Rows
from pipeline.manifest import Progress

# Ids are grouped by their number of train rows; these are the lower ends.
_FREQUENCIES = (1, 2, 5, 10, 100, 1000)
# With fewer rows, a difference may be chance.
FEWEST_ROWS = 50
# Intervals of slices are shown, not tested.
_MOST_RESAMPLES_OF_A_SLICE = 200


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FeatureEncoding(_Frozen):
    """Holds the measurements of one feature's encoding; shares are in [0, 1].

    `colliding_ids` and `colliding_rows` are the shares of the distinct train ids and of train rows that share an
    embedding with another id. `expected_colliding_ids` is the theoretical share, None for a vocabulary. `oov_rows` is
    by split, None for hashing.
    """

    distinct_ids: int
    table_rows: int
    colliding_ids: float
    expected_colliding_ids: float | None
    colliding_rows: float
    oov_rows: dict[str, float] | None


class MeasuredVariant(_Frozen):
    """Holds the measurements of a trained variant; `fingerprint` covers everything that they depend on.

    `served_bytes` is the size of the export: tables and vocabularies. `slot_bytes` is the memory of the optimizer's
    slots, in training only.
    """

    name: str
    title: str
    kind: Literal["configured", "reseeded", "vocabulary", "hashing"]
    fingerprint: str
    features: dict[str, FeatureEncoding]
    table_bytes: int
    slot_bytes: int
    served_bytes: int
    preprocess_seconds: float
    train_seconds: float
    epochs: int | float
    best_epoch: int | float


class Scores(_Frozen):
    """Holds scores on some rows; gains are over the first variant, from the same resamples, and positive is better."""

    auc: Estimate
    log_loss: Estimate
    auc_gain: Estimate
    log_loss_gain: Estimate


class SliceScores(_Frozen):
    """Holds scores on the rows of a slice; `scores` is by name of the variant."""

    kind: str
    value: str
    rows: int
    scores: dict[str, Scores]


class Comparison(_Frozen):
    """Holds the contents of `comparison.json`; the first of `variants` is the configuration as it was given.

    `scores` is by name of the variant, on all eval rows. `best` is the best variant by `monitor`. `behind`, by name and
    metric, is how much worse each variant is than the best, positive where worse.
    """

    variants: list[MeasuredVariant]
    rows: dict[str, int]
    users: int
    resamples: int
    scores: dict[str, Scores]
    monitor: Literal["auc", "log-loss"]
    best: str
    behind: dict[str, dict[str, Estimate]]
    slices: list[SliceScores]


def compare(
    variants: Sequence[MeasuredVariant],
    predictions: Sequence[Probabilities],
    positive: Positive,
    rows: Rows,
    train: Rows,
    user: str,
    monitor: Literal["auc", "log-loss"],
    progress: Progress,
) -> Comparison:
    """Measures all variants on the same rows and the same resamples of users.

    Args:
        variants: the others are compared with the first.
        predictions: P(positive) of each variant, `[rows]`.
        positive: `[rows]`.
        rows: the eval rows with the ids themselves.
        train: the train rows, with the same codes.
        user: the feature whose ids are resampled.
        monitor: the metric that decides which variant is the best.
        progress: called with the stage `intervals`.
    """
    users = rows.clusters(user)
    names = [variant.name for variant in variants]
    everything = _Measured(predictions, positive, users, num_resamples(len(positive)))
    contenders = [number for number, variant in enumerate(variants) if variant.kind != "reseeded"]
    best = max(contenders, key=lambda number: everything.goodness(monitor, number))
    done = len(positive)
    progress("intervals", done, None, {})
    slices = []
    for grouping in _groupings(rows, train):
        for group, value in enumerate(grouping.values):
            index = np.flatnonzero(grouping.group == group)
            if len(index) >= FEWEST_ROWS:
                resamples = min(num_resamples(len(index)), _MOST_RESAMPLES_OF_A_SLICE)
                measured = _Measured([p[index] for p in predictions], positive[index], users[index], resamples)
                scores = dict(zip(names, measured.scores(), strict=True))
                slices.append(SliceScores(kind=grouping.kind, value=value, rows=len(index), scores=scores))
            done += len(index)
            progress("intervals", done, None, {})
    return Comparison(
        variants=list(variants),
        rows={"train": len(train), "eval": len(rows)},
        users=len(np.unique(users)),
        resamples=num_resamples(len(positive)),
        scores=dict(zip(names, everything.scores(), strict=True)),
        monitor=monitor,
        best=names[best],
        behind={
            name: {metric: everything.gain(metric, best, over=number) for metric in CORE}
            for number, name in enumerate(names)
        },
        slices=slices,
    )


class _Measured:
    """Measures several predictions of the same rows, also on the same resamples."""

    def __init__(
        self, predictions: Sequence[Probabilities], positive: Positive, users: npt.NDArray[Any], resamples: int
    ) -> None:
        self._values = [all_metrics(probability, positive, CORE) for probability in predictions]
        self._drawn = resampled(predictions, positive, users, metrics=CORE, resamples=resamples)

    def goodness(self, metric: str, number: int) -> float:
        """Returns a metric of one prediction, with the sign changed if lower is better, so that higher is better."""
        value = self._values[number][metric]
        return value if metric == "auc" else -value

    def value(self, metric: str, number: int) -> Estimate:
        drawn = self._drawn[metric][number] if metric in self._drawn else None
        return interval(self._values[number][metric], drawn)

    def gain(self, metric: str, number: int, over: int = 0) -> Estimate:
        """Estimates how much better prediction `number` is than prediction `over`; positive is better."""
        sign = 1 if metric == "auc" else -1
        drawn = None
        if metric in self._drawn:
            drawn = sign * (self._drawn[metric][number] - self._drawn[metric][over])
        return interval(self.goodness(metric, number) - self.goodness(metric, over), drawn)

    def scores(self) -> list[Scores]:
        return [
            Scores(
                auc=self.value("auc", number),
                log_loss=self.value("log-loss", number),
                auc_gain=self.gain("auc", number),
                log_loss_gain=self.gain("log-loss", number),
            )
            for number in range(len(self._values))
        ]


def _groupings(rows: Rows, train: Rows) -> list[Grouping]:
    """Groups rows by the number of train rows of their id, for each feature."""
    highest = [f"{high - 1:,}" for high in _FREQUENCIES[1:]]
    spans = [
        f"{low:,}" if f"{low:,}" == high else f"{low:,} to {high}"
        for low, high in zip(_FREQUENCIES, highest, strict=False)
    ]
    values = ["0 (cold)", *spans, f"{_FREQUENCIES[-1]:,} or more"]
    return [
        Grouping(name, values, np.searchsorted(_FREQUENCIES, train_counts(rows, train, name), side="right"))
        for name in rows.ids
    ]
