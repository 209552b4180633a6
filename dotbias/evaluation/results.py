"""Defines `evaluation.json`: all measurements of a model on a set of rows.

```
<run>/evaluation/eval/evaluation.json      the eval split; `train` likewise
<run>/evaluation/eval/slices.csv           the same `slices`, one a line, for spreadsheets
<run>/evaluation/input-log/evaluation.json new files, the first of which is log.csv
<run>/evaluation/eval-1a2b3c4d/...         another export than that of the run, by its fingerprint
```

This module needs neither Beam nor TensorFlow.
"""

from __future__ import annotations

import csv
import io
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.manifest import DotbiasError, InputFile

# 2 added `verdict`, 3 more about lists. Versions 1 and 2 can be read.
FORMAT_VERSION = 3
EVALUATION_DIRECTORY = "evaluation"
EVALUATION_NAME = "evaluation.json"
SLICES_NAME = "slices.csv"

WarningCode = Literal[
    "trained-on-these-rows",
    "leaked-rows",
    "one-class",
    "no-cold-ids",
    "below-biases",
    "off-in-the-mean",
    "no-ranking",
    "unknown-training",
]

# One short sentence for each warning.
WARNING_TITLES: dict[WarningCode, str] = {
    "trained-on-these-rows": "The model was trained on these rows.",
    "leaked-rows": "Many rows repeat train rows.",
    "one-class": "All rows have the same class.",
    "no-cold-ids": "The rows have too few new ids.",
    "below-biases": "The model ranks worse than biases alone.",
    "off-in-the-mean": "The mean prediction is off.",
    "no-ranking": "Items were not ranked.",
    "unknown-training": "The model may have been trained on these rows.",
}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(_Frozen):
    """Holds a number and its 95 % interval from resampled users.

    `value` is None if it is not defined, such as the AUC of rows of one class; `low` and `high` are None if there are
    too few users to resample.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


class Sample(_Frozen):
    """Says which users were measured: each with probability `share`, by a hash of the token that `seed` keys.

    `rows` and `users` are those that the sample was taken from. All rows of a sampled user were measured.
    """

    share: float
    seed: int
    rows: int
    users: int


class Subject(_Frozen):
    """Names the export and the rows that were measured.

    `split` is None for new files, which `files` lists. `rows` does not count the `rejected` rows of new files. `users`
    is the number of users that are resampled; each row whose user is out of vocabulary counts as one. `user` and `item`
    name the features that slices and ranking use, the first of each side. With `before_refit`, the served export is
    another one, which was also trained on the eval rows. `implicit` rows have no labels: all are positive, and only the
    ranking says something about the model. `objective` is that of the model's training, as far as it is known.
    `other_export` is a second model whose lists were compared. With a `sample`, the numbers are of its users.
    """

    export: str
    export_fingerprint: str
    dataset: str
    dataset_fingerprint: str
    split: Literal["train", "eval"] | None
    files: list[InputFile]
    rows: int
    positives: int
    users: int
    rejected: int
    rejected_by_reason: dict[str, int]
    user: str
    item: str
    resamples: int
    before_refit: bool = False
    implicit: bool = False
    objective: Literal["cross_entropy", "softmax"] = "cross_entropy"
    other_export: str | None = None
    sample: Sample | None = None

    @property
    def makes_lists(self) -> bool:
        """Tells whether the model was trained to find items among all, and not to predict labels."""
        return self.implicit or self.objective == "softmax"


class CalibrationBin(_Frozen):
    """Holds the mean prediction and the share of positive rows of the rows with a prediction in [low, high]."""

    low: float
    high: float
    rows: int
    prediction_mean: float
    label_mean: float


class Curve(_Frozen):
    """Holds the points of a curve in the order in which the threshold falls.

    x and y are false positive rate and recall (ROC), or recall and precision (PR).
    """

    x: list[float]
    y: list[float]


class Slice(_Frozen):
    """Holds the measurements on a slice of the rows; `note` says why a number is missing."""

    kind: str
    value: str
    rows: int
    positives: int
    users: int
    prediction_mean: float
    label_mean: float
    auc: Estimate
    log_loss: Estimate
    note: str = ""


class Baseline(_Frozen):
    """Holds the metrics of a simpler model on the same rows, and the gains of the model over it.

    The gains are the model's AUC minus that of the baseline, and the baseline's log loss minus that of the model:
    positive is better. Their intervals come from the same resamples of users.
    """

    name: Literal["base rate", "biases alone"]
    auc: Estimate
    log_loss: Estimate
    auc_gain: Estimate
    log_loss_gain: Estimate


RankerName = Literal["model", "popularity", "other export", "fold-in"]
_NOT_MEASURED = Estimate(value=None)


class RankingAtK(_Frozen):
    """Holds the metrics of the first k items of each ranking.

    `hit_rate` is the share of users with a relevant item among them, `mrr` the mean of 1 / rank of a user's first
    relevant item, 0 if there is none. `coverage` is the share of all items that are among the first k of at least one
    user. `popularity` is the mean popularity of the first k items, from 0 for the item with the fewest train rows to 1
    for that with the most; `popular_share` is the share of them that is among the tenth of items with the most train
    rows. `novelty` is their mean self-information in bits: -log2 of an item's share of the train rows. Files before
    version 3 lack some.
    """

    k: int
    recall: Estimate
    ndcg: Estimate
    hit_rate: Estimate = _NOT_MEASURED
    mrr: Estimate = _NOT_MEASURED
    coverage: float
    popularity: float
    popular_share: float | None = None
    novelty: float | None = None


class RankingGain(_Frozen):
    """Holds the gains of the model over another ranker on the first k items: mean differences by user."""

    k: int
    recall: Estimate
    ndcg: Estimate
    hit_rate: Estimate
    mrr: Estimate


class Ranker(_Frozen):
    """Holds the results of one ranking of all items.

    It is that of the `model`; by `popularity`: the items with the most train rows first; of an `other export`; or
    `fold-in`: the model's lists for the same users by their positive train items alone, without their own vectors.
    `gains` are those of the model over this ranker, for the same users; empty for the model. `mrr` is over all ranks.
    """

    name: RankerName
    at: list[RankingAtK]
    mrr: Estimate
    gains: list[RankingGain] = []


class RankingSlice(_Frozen):
    """Holds the metrics of the lists of some users, or of some relevant items, beside those of the most popular items.

    `users` have `relevant` pairs in the slice. NDCG is not defined for a part of the relevant items.
    """

    kind: str
    value: str
    k: int
    users: int
    relevant: int
    recall: Estimate
    ndcg: Estimate = _NOT_MEASURED
    popularity_recall: Estimate
    popularity_ndcg: Estimate = _NOT_MEASURED


class Ranking(_Frozen):
    """Holds the results of ranking all items of the vocabulary for each user, except those in the user's train rows.

    No negatives are sampled. Relevant are the ranked items of the user's positive rows; `unrankable` counts the pairs
    whose item is unknown or in the user's train rows. `eligible` users have a relevant item; `users` of them were
    measured, a random sample if fewer. `relevant_popularity` and `relevant_popular_share` are those of the relevant
    items, as in `RankingAtK`.
    """

    users: int
    eligible: int
    items: int
    relevant: int
    unrankable: int
    relevant_popularity: float
    relevant_popular_share: float | None = None
    rankers: list[Ranker]
    slices: list[RankingSlice] = []


class EvaluationWarning(_Frozen):
    """Holds a reason to doubt the numbers."""

    code: WarningCode
    text: str


VerdictKind = Literal["go", "look", "stop", "none"]


class Check(_Frozen):
    """Holds a condition of a verdict: `value` has to be above, at least or at most `limit`.

    `value` is None where it is not defined. A check that fails makes the verdict the kind `fails_as`.
    """

    name: str
    value: float | None
    rule: Literal["above", "at least", "at most"]
    limit: float
    passed: bool
    fails_as: Literal["look", "stop"]


class Verdict(_Frozen):
    """Holds the decision whether to ship the model.

    `kind` is `go` (ship), `look` (a person should look first), `stop` (do not ship) or `none` (not evaluated).
    `reasons` say why the kind is not `go`, `strengths` are the results in favour of the model, and `use` says what the
    model is good for, empty if unknown. `decides` is false if the numbers say nothing about new rows, neither for nor
    against the model. `about` says which model was measured, if that is not the one to ship.
    """

    kind: VerdictKind
    headline: str
    reasons: list[str]
    strengths: list[str] = []
    use: str = ""
    decides: bool = True
    about: str = ""
    checks: list[Check] = []


class Evaluation(_Frozen):
    """Holds the contents of `evaluation.json`. `fingerprint` covers all that it depends on, so it is made only once.

    `metrics` has, by name: auc, pr-auc, accuracy, log-loss, brier, ece, prediction_mean, label_mean; log loss in nats.
    All compare with positive or not (`positive_at` of the manifest), also where training labels are soft. `verdict` is
    None in files of version 1.
    """

    format_version: Literal[1, 2, 3] = 3
    fingerprint: str
    subject: Subject
    metrics: dict[str, Estimate]
    calibration: list[CalibrationBin]
    roc: Curve
    pr: Curve
    slices: list[Slice]
    baselines: list[Baseline]
    ranking: Ranking | None
    warnings: list[EvaluationWarning]
    verdict: Verdict | None = None
    versions: dict[str, str]

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: str = EVALUATION_NAME) -> Evaluation:
        """Raises `DotbiasError`, which names `origin`, if this version cannot read the text."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise DotbiasError(f"{origin}: `{where}`: {first['msg']}; evaluate again.") from None


def slices_csv(slices: list[Slice]) -> str:
    """Formats slices as CSV: a header and a line for each slice; an estimate becomes three columns."""
    text = io.StringIO()
    rows = [_flat(json.loads(slice_.model_dump_json())) for slice_ in slices]
    header = list(rows[0]) if rows else [name for name in Slice.model_fields]
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= {name if key == "value" else f"{name}_{key}": number for key, number in value.items()}
        else:
            flat[name] = value
    return flat
