"""Two exported models on the same rows: each one's metrics, and their differences from the same resamples of users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from pydantic import BaseModel, ConfigDict

from dotbias.evaluation.exported.client import Export
from dotbias.evaluation.measure.bootstrap import interval, mean_estimate, num_resamples, resampled
from dotbias.evaluation.measure.metrics import Positive, Probabilities, all_metrics
from dotbias.evaluation.measure.ranking import ndcg_by_user, ranking_task
from dotbias.evaluation.results import Estimate
from dotbias.evaluation.rows import Rows
from dotbias.evaluation.shard_rows import read_eval, read_train
from pipeline.manifest import DotbiasError, Progress, Side, read_manifest
from trainer.data.dataset import Dataset

_SEED = 42
# Names of the metrics in `Measured`, by their names in `metrics`; the second are better where they are smaller.
_METRICS = {"auc": "auc", "log_loss": "log-loss"}
_SMALLER_IS_BETTER = {"log_loss"}
# Length of the lists that NDCG looks at.
K = 10
# Smaller slices say nothing that chance could not say too.
FEWEST_ROWS = 50


class Measured(BaseModel):
    """Metrics of one model, or gains of one over another; a metric that is not defined has the value None.

    `ndcg` is NDCG@10 over all items.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    auc: Estimate
    log_loss: Estimate
    ndcg: Estimate


class Pair(BaseModel):
    """A second model beside a first; `gains` are positive where the second is better, also in log loss."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: Measured
    second: Measured
    gains: Measured


class Comparison(BaseModel):
    """Several models beside a first one, on all rows, and on the rows of slices by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    users: int
    pairs: dict[str, Pair]
    slices: dict[str, dict[str, Pair]]


def compare_exports(
    first: str, others: Mapping[str, str], dataset: str, progress: Progress, seed: int = _SEED
) -> Comparison:
    """Asks exported models for the eval rows of a dataset, and compares each with the first.

    All are asked with the tokens as the dataset has them. A token outside of its vocabulary is not known any more: all
    models are asked for one that stands for its OOV bucket.

    Args:
        first: directory of the export that the others are compared with.
        others: directories of the others, by name.
        dataset: directory of the dataset, which none of the models needs to have been trained on.
        progress: of the stages `read`, `predict` and `rank`.
        seed: of the resamples.

    Raises:
        DotbiasError: an export cannot be loaded or takes other features, or there are no eval rows.
    """
    manifest = read_manifest(dataset, tf.io.gfile.GFile)
    data = Dataset(dataset, manifest, {})
    if not data.split("eval").rows:
        raise DotbiasError(f"{dataset} has no eval rows, so models cannot be compared on it.")
    train = read_train(data, progress)
    rows = read_eval(data, train, progress)
    positive = rows.positive(manifest.label.positive_at)
    user, item = (first_of(data, side) for side in ("user", "item"))
    exports = [Export(directory, manifest) for directory in (first, *others.values())]
    answers = [export.probabilities(rows, progress) for export in exports]
    ndcg = _ndcg(exports, answers, rows, train, positive, user, item, progress)
    users = rows.clusters(user)
    cuts = {"new_users": ~rows.known(user), "new_items": ~rows.known(item)}
    return Comparison(
        rows=len(rows),
        users=len(np.unique(users)),
        pairs=compare_answers(list(others), answers, positive, users, ndcg, seed),
        slices={
            name: compare_answers(
                list(others), [part[mask] for part in answers], positive[mask], users[mask], None, seed
            )
            for name, mask in cuts.items()
            if mask.sum() >= FEWEST_ROWS
        },
    )


def compare_answers(
    names: Sequence[str],
    answers: Sequence[Probabilities],
    positive: Positive,
    users: npt.NDArray[np.int64],
    ndcg: Sequence[npt.NDArray[np.float64]] | None = None,
    seed: int = _SEED,
) -> dict[str, Pair]:
    """Compares answers for the same rows with the first of them.

    Args:
        names: of all but the first.
        answers: P(positive), each `[rows]`.
        positive: `[rows]`.
        users: `[rows]`; equal ones are one user.
        ndcg: NDCG of each model, each `[ranked users]`, the same users in the same order; None if nothing is ranked.
        seed: of the resamples.
    """
    metrics = list(_METRICS.values())
    values = [all_metrics(probability, positive, metrics) for probability in answers]
    drawn = resampled(answers, positive, users, metrics=metrics, resamples=num_resamples(len(positive)), seed=seed)

    def measured(number: int) -> Measured:
        found = {
            name: interval(values[number][metric], drawn[metric][number] if metric in drawn else None)
            for name, metric in _METRICS.items()
        }
        return Measured(**found, ndcg=_mean(None if ndcg is None else ndcg[number], seed))

    def gains(number: int) -> Measured:
        found = {}
        for name, metric in _METRICS.items():
            sign = -1 if name in _SMALLER_IS_BETTER else 1
            resamples = sign * (drawn[metric][number] - drawn[metric][0]) if metric in drawn else None
            found[name] = interval(sign * (values[number][metric] - values[0][metric]), resamples)
        return Measured(**found, ndcg=_mean(None if ndcg is None else ndcg[number] - ndcg[0], seed))

    return {
        name: Pair(first=measured(0), second=measured(number), gains=gains(number))
        for number, name in enumerate(names, start=1)
    }


def first_of(data: Dataset, side: Side) -> str:
    """Returns the feature that a side goes by: its first."""
    return next(name for name, feature in data.manifest.features.items() if feature.side == side)


def _mean(by_user: npt.NDArray[np.float64] | None, seed: int) -> Estimate:
    return Estimate(value=None) if by_user is None else mean_estimate(by_user, seed=seed)


def _ndcg(
    exports: Sequence[Export],
    answers: Sequence[Probabilities],
    rows: Rows,
    train: Rows,
    positive: Positive,
    user: str,
    item: str,
    progress: Progress,
) -> list[npt.NDArray[np.float64]] | None:
    """NDCG by user of each model; None if there is nobody to rank for, or a model's vectors do not give its answers."""
    task = ranking_task(rows, train, positive, user, item, _SEED)
    if task is None or not all(
        export.vectors_explain(rows, probability) for export, probability in zip(exports, answers, strict=True)
    ):
        return None
    return [ndcg_by_user(export, task, rows, train, user, item, K, progress) for export in exports]
