"""Finds reasons to doubt the numbers of an evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dotbias.evaluation.measure.bootstrap import interval, resampled
from dotbias.evaluation.measure.metrics import Positive, Probabilities, has_both_classes
from dotbias.evaluation.results import Baseline, EvaluationWarning
from dotbias.evaluation.rows import Rows
from pipeline.rows.token_hash import mix

# Warn from this share of rows with the ids and time of a train row; a few stray lines are normal.
_LEAKED = 0.001
# Without timestamps: by how much the share of rows that repeat train rows may exceed the share of repeats within train.
_REPEATED = 0.05
# Warn if cold rows are under a quarter of the expected share, where 5 % or more are expected.
_MANY_COLD, _FEW_COLD = 0.05, 0.25
# Warn if the mean prediction is off by more than this fraction of the share of positive rows.
_FAR = 0.1


def training_warnings(
    result: dict[str, Any] | None, before_refit: bool, split: str | None, dataset_fingerprint: str
) -> list[EvaluationWarning]:
    """Warns if the model was, or may have been, trained on the rows that are evaluated.

    Args:
        result: `metrics.json` beside the export, None if there is none.
        before_refit: whether the export is the model from before the refit.
        split: split of the dataset; None for new files.
        dataset_fingerprint: fingerprint of the dataset that the split belongs to.
    """
    if split is None:
        return []
    if result is None:
        # An export can be copied alone.
        return [
            _unknown(f"there is no metrics.json beside the export, so it may have been trained on these {split} rows")
        ]
    if result["dataset"]["fingerprint"] != dataset_fingerprint:
        return [_unknown(f"the export was trained on another dataset, which may contain these {split} rows")]
    if split == "train":
        return [_trained("the model was trained on these rows, so the numbers say nothing about new rows")]
    if result["train"]["refit"] is not None and not before_refit:
        return [
            _trained(
                "the export was trained on train and eval rows (refit), so these numbers are too good; evaluate the "
                "model before the refit, which is in export_before_refit/, or use new files with --input"
            )
        ]
    return []


def _unknown(text: str) -> EvaluationWarning:
    return EvaluationWarning(code="unknown-training", text=text)


def _trained(text: str) -> EvaluationWarning:
    return EvaluationWarning(code="trained-on-these-rows", text=text)


def leak_warnings(rows: Rows, train: Rows) -> list[EvaluationWarning]:
    """Warns if rows repeat train rows: all ids and the time are the same.

    Without timestamps, a row with the same ids can be a new interaction. Then it counts as a leak only if it is more
    frequent than repetitions within train.
    """
    timed = rows.timestamps is not None and train.timestamps is not None
    there = np.sort(_keys(train, timed))
    here = _keys(rows, timed)
    if not len(there) or not len(here):
        return []
    position = np.minimum(np.searchsorted(there, here), len(there) - 1)
    share = float((there[position] == here).sum() / len(rows))
    if timed:
        allowed, what = _LEAKED, "the same ids and time as a train row"
    else:
        again = there[1:] == there[:-1]
        repeated = float((np.append(again, False) | np.append(False, again)).sum() / len(train))
        allowed, what = (
            repeated + _REPEATED,
            f"the same ids as a train row, but only {repeated:.1%} of train rows repeat",
        )
    if share <= allowed:
        return []
    text = f"{share:.1%} of the rows have {what}, so they test nothing; `pipeline.duplicates: last` drops repeated rows"
    return [EvaluationWarning(code="leaked-rows", text=text)]


def _keys(rows: Rows, timed: bool) -> npt.NDArray[np.uint64]:
    """Hashes ids and time of each row whose ids are all known."""
    known = np.ones(len(rows), bool)
    for name in rows.ids:
        known &= rows.known(name)
    keys = np.zeros(int(known.sum()), np.uint64)
    for name in sorted(rows.ids):
        keys = mix(keys ^ rows.codes[name][known].astype(np.uint64))
    if timed:
        assert rows.timestamps is not None
        keys = mix(keys ^ rows.timestamps[known].astype(np.uint64))
    return keys


def label_warnings(positive: Positive) -> list[EvaluationWarning]:
    """Warns if all rows are of one class."""
    if has_both_classes(positive):
        return []
    kind = "positive" if positive.any() else "negative"
    text = f"all rows are {kind}, so AUC is not defined; check `pipeline.label`"
    return [EvaluationWarning(code="one-class", text=text)]


def cold_warnings(rows: Rows, train: Rows, name: str) -> list[EvaluationWarning]:
    """Warns if the rows have few new ids although production will have many."""
    share = 1 - float(rows.known(name).mean())
    expected, where = expected_cold(train, name)
    if expected < _MANY_COLD or share >= _FEW_COLD * expected:
        return []
    text = (
        f"{share:.1%} of the rows have a {name} that is not in train, but {expected:.1%} {where}; the numbers are "
        "about known ids, and production will see new ids: `pipeline.split.method: time` puts new ids into eval too"
    )
    return [EvaluationWarning(code="no-cold-ids", text=text)]


def expected_cold(train: Rows, name: str) -> tuple[float, str]:
    """Estimates the share of rows with new ids from train alone; returns it with the words for where it comes from.

    With timestamps: the share of the last tenth of the rows whose id has no earlier row. Without: the number of ids
    that occur once over the number of rows, which is the probability that the next row has a new id (I. J. Good, "The
    Population Frequencies of Species and the Estimation of Population Parameters", 1953); each row out of vocabulary
    counts as an id that occurs once.
    """
    codes, known = train.codes[name], train.ids[name].known
    if train.timestamps is not None and len(train):
        cut = np.quantile(train.timestamps, 0.9)
        last = train.timestamps >= cut
        before = np.zeros(max(known, int(codes.max()) + 1), bool)
        before[codes[~last]] = True
        before[known:] = False
        return float((~before[codes[last]]).mean()), "of the last tenth of train by time have a new id"
    counts = np.bincount(codes, minlength=known)
    once = int((counts[:known] == 1).sum() + counts[known:].sum())
    return once / max(len(train), 1), "are expected from the ids that occur once in train"


def bias_warnings(baselines: list[Baseline]) -> list[EvaluationWarning]:
    """Warns if the model ranks worse than biases alone."""
    (gain,) = [baseline.auc_gain for baseline in baselines if baseline.name == "biases alone"]
    if gain.value is None or gain.value >= 0:
        return []
    chance = "" if gain.high is not None and gain.high < 0 else " (it may be chance)"
    text = (
        f"AUC is {-gain.value:.4f} below that of biases alone{chance}, so the vectors do not help; try more "
        "`trainer.l2`, or --stage tune"
    )
    return [EvaluationWarning(code="below-biases", text=text)]


def mean_warnings(
    probability: Probabilities, positive: Positive, users: npt.NDArray[np.int64]
) -> list[EvaluationWarning]:
    """Warns if the mean prediction is off by more than a tenth of the share of positive rows, and beyond chance."""
    share = float(positive.mean())
    difference = float(probability.mean(dtype=np.float64)) - share
    if abs(difference) <= _FAR * share:
        return []
    drawn = resampled([probability], positive, users, metrics=("prediction_mean", "label_mean"))
    if not drawn:
        return []
    found = interval(difference, drawn["prediction_mean"][0] - drawn["label_mean"][0])
    assert found.low is not None and found.high is not None
    if found.low <= 0 <= found.high:
        return []
    text = (
        f"the mean prediction is {share + difference:.4f}, but {share:.4f} of the rows are positive: these rows differ "
        "from those that the probability was calibrated on"
    )
    return [EvaluationWarning(code="off-in-the-mean", text=text)]
