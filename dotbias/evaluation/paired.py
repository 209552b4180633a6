"""Compares exported models on the same rows: each model's metrics, and differences on the same resamples of users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from pydantic import BaseModel, ConfigDict

from dotbias.evaluation.exported.client import Export
from dotbias.evaluation.measure.bootstrap import interval, mean_estimate, num_resamples, resampled
from dotbias.evaluation.measure.metrics import Positive, Probabilities, all_metrics
from dotbias.evaluation.measure.ranking import ndcg_by_user
from dotbias.evaluation.measure.ranking_task import ranking_task
from dotbias.evaluation.measure.slices import FEWEST_ROWS, token_grouping
from dotbias.evaluation.results import Estimate
from dotbias.evaluation.rows import Rows
from dotbias.evaluation.shard_rows import first_feature, read_eval, read_train
from pipeline.manifest import DotbiasError, Progress, read_manifest
from trainer.data.dataset import Dataset

_SEED = 42
# Names of the metrics in `Measured`, and their names in `dotbias.evaluation.measure.metrics`.
_METRICS = {"auc": "auc", "log_loss": "log-loss", "pr_auc": "pr-auc"}
_SMALLER_IS_BETTER = {"log_loss"}
# Length of the lists that NDCG looks at.
K = 10


class Measured(BaseModel):
    """Holds metrics of one model, or gains of one model over another; a metric that is not defined is None.

    Log loss is in nats, against positive or not. `ndcg` is NDCG@10 over all items of the dataset's vocabulary.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    auc: Estimate
    log_loss: Estimate
    ndcg: Estimate
    pr_auc: Estimate = Estimate(value=None)


class Pair(BaseModel):
    """Holds the metrics of two models, and the gains of the second: positive is better, also for log loss."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: Measured
    second: Measured
    gains: Measured


class PairedSlice(BaseModel):
    """Holds the comparison on the rows of a slice: each other model with the first, by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    users: int
    pairs: dict[str, Pair]


class PairedComparison(BaseModel):
    """Holds the comparison of several models with a first one, by name, on all eval rows and on slices of them.

    `slices` has `new_users` and `new_items`, whose id has no train row in the dataset, or is out of its vocabulary, and
    `<feature>: <value>` for the values of further features. A slice with fewer than 50 rows is left out. NDCG is
    measured on all rows only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    users: int
    resamples: int
    pairs: dict[str, Pair]
    slices: dict[str, PairedSlice]


def compare_exports(
    first: str,
    others: Mapping[str, str],
    dataset: str,
    progress: Progress,
    *,
    features: Sequence[str] = (),
    resamples: int | None = None,
    seed: int = _SEED,
) -> PairedComparison:
    """Predicts the eval rows of a dataset with several exported models, and compares each with the first.

    All models get the same tokens; a token that is not in a model's vocabulary is looked up in an OOV bucket, as in
    production. For ids outside the dataset's vocabulary, shards have only OOV buckets, so all models get a token that
    no vocabulary has, even a model that would know the lost token. A model may lack some features of the dataset.

    Memory holds the columns of the rows (4 bytes for each feature, label and model) and one vocabulary of tokens.

    Args:
        first: directory of the export that the others are compared with.
        others: directories of the others, by name.
        dataset: directory of the dataset; no model has to be trained on it.
        progress: of the stages `read`, `predict` and `rank`.
        features: further features whose values are slices: the ten most frequent values, and all others together.
        resamples: number of bootstrap resamples; None: chosen by the number of rows, 100 to 1,000.
        seed: of the resamples.

    Raises:
        DotbiasError: an export cannot be loaded or takes other features, the dataset has no eval rows, or a feature is
            not in it.
    """
    manifest = read_manifest(dataset, tf.io.gfile.GFile)
    data = Dataset(dataset, manifest, {})
    if not data.split("eval").rows:
        raise DotbiasError(f"{dataset} has no eval rows, so models cannot be compared on it.")
    for name in features:
        if name not in manifest.features:
            raise DotbiasError(f"{dataset} has no feature {name!r}; it has {', '.join(manifest.features)}.")
    train = read_train(data, progress)
    rows = read_eval(data, train, progress)
    positive = rows.positive(manifest.label.positive_at)
    user, item = first_feature(data, "user"), first_feature(data, "item")
    exports = [Export(directory, manifest, fewer=True) for directory in (first, *others.values())]
    answers = [export.probabilities(rows, progress) for export in exports]
    ndcg = _ndcg(exports, answers, rows, train, positive, user, item, progress)
    users = rows.clusters(user)
    names = list(others)
    count = num_resamples(len(rows)) if resamples is None else resamples
    slices = {}
    for slice_name, mask in _slices(rows, user, item, features).items():
        index = np.flatnonzero(mask)
        if len(index) >= FEWEST_ROWS:
            part = [probability[index] for probability in answers]
            slices[slice_name] = PairedSlice(
                rows=len(index),
                users=len(np.unique(users[index])),
                pairs=compare_answers(names, part, positive[index], users[index], resamples=count, seed=seed),
            )
    return PairedComparison(
        rows=len(rows),
        users=len(np.unique(users)),
        resamples=count,
        pairs=compare_answers(names, answers, positive, users, ndcg, resamples=count, seed=seed),
        slices=slices,
    )


def compare_answers(
    names: Sequence[str],
    answers: Sequence[Probabilities],
    positive: Positive,
    users: npt.NDArray[np.int64],
    ndcg: Sequence[npt.NDArray[np.float64]] | None = None,
    *,
    resamples: int | None = None,
    seed: int = _SEED,
) -> dict[str, Pair]:
    """Compares several predictions of the same rows with the first of them.

    Args:
        names: names of all predictions but the first.
        answers: P(positive), each `[rows]`.
        positive: `[rows]`.
        users: `[rows]`; equal ones are one user.
        ndcg: NDCG of each model, each `[ranked users]`, the same users in the same order; None if nothing is ranked.
        resamples: None: chosen by the number of rows.
        seed: of the resamples.
    """
    metrics = list(_METRICS.values())
    values = [all_metrics(probability, positive, metrics) for probability in answers]
    count = num_resamples(len(positive)) if resamples is None else resamples
    drawn = resampled(answers, positive, users, metrics=metrics, resamples=count, seed=seed)

    def measured(number: int) -> Measured:
        found = {
            name: interval(values[number][metric], drawn[metric][number] if metric in drawn else None)
            for name, metric in _METRICS.items()
        }
        return Measured(**found, ndcg=_mean(None if ndcg is None else ndcg[number], count, seed))

    def gains(number: int) -> Measured:
        found = {}
        for name, metric in _METRICS.items():
            sign = -1 if name in _SMALLER_IS_BETTER else 1
            differences = sign * (drawn[metric][number] - drawn[metric][0]) if metric in drawn else None
            found[name] = interval(sign * (values[number][metric] - values[0][metric]), differences)
        return Measured(**found, ndcg=_mean(None if ndcg is None else ndcg[number] - ndcg[0], count, seed))

    return {
        name: Pair(first=measured(0), second=measured(number), gains=gains(number))
        for number, name in enumerate(names, start=1)
    }


def _mean(by_user: npt.NDArray[np.float64] | None, resamples: int, seed: int) -> Estimate:
    return Estimate(value=None) if by_user is None else mean_estimate(by_user, resamples=resamples, seed=seed)


def _slices(rows: Rows, user: str, item: str, features: Sequence[str]) -> dict[str, npt.NDArray[np.bool_]]:
    """Returns the mask of rows, `[rows]`, of each slice by its name."""
    masks = {"new_users": ~rows.known(user), "new_items": ~rows.known(item)}
    for name in features:
        grouping = token_grouping(rows, name)
        for number, value in enumerate(grouping.values):
            masks[f"{name}: {value}"] = grouping.group == number
    return masks


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
    """Computes NDCG by user for each model; None without users to rank for, or if vectors do not explain a model."""
    task = ranking_task(rows, train, positive, user, item, _SEED)
    if task is None or not all(
        export.vectors_explain(rows, probability) for export, probability in zip(exports, answers, strict=True)
    ):
        return None
    return [ndcg_by_user(export, task, rows, train, user, item, K, progress) for export in exports]
