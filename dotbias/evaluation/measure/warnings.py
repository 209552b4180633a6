"""What about the set-up makes numbers mean less than they seem to."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dotbias.evaluation.measure.bootstrap import interval, resampled
from dotbias.evaluation.measure.metrics import Positive, Probabilities, has_both_classes
from dotbias.evaluation.results import Baseline, EvaluationWarning
from dotbias.evaluation.rows import Rows
from pipeline.rows.token_hash import mix

# Of rows with the same ids at the same time: more than a stray line.
_LEAKED = 0.001
# Of rows with the same ids where there is no time: how much more often than train repeats itself.
_REPEATED = 0.05
# Of rows: a data set with that many new ids has many, and one with a quarter of that does not show them.
_MANY_COLD, _FEW_COLD = 0.05, 0.25
# Of the share of positive rows.
_FAR = 0.1


def training_warnings(
    result: dict[str, Any] | None, before_refit: bool, split: str | None, dataset_fingerprint: str
) -> list[EvaluationWarning]:
    """Whether the model was trained on the rows that it is asked about.

    Args:
        result: `metrics.json` beside the export, None if there is none.
        before_refit: whether the export is of the model as it was before the refit.
        split: of the dataset; None for new files.
        dataset_fingerprint: of the dataset that the split belongs to.
    """
    if split is None:
        return []
    if result is None:
        # An export can be copied alone.
        return [_unknown(f"no metrics.json beside the export says what it was trained on; it may be {split}")]
    if result["dataset"]["fingerprint"] != dataset_fingerprint:
        return [_unknown(f"the export was trained on another dataset; rows of {split} may be in that too")]
    if split == "train":
        return [_trained("the model was trained on these rows: the numbers show what it remembers, not how good it is")]
    if result["train"]["refit"] is not None and not before_refit:
        return [
            _trained(
                "the export was trained on train and eval rows (refit), so that these numbers flatter it; the model "
                "before the refit, which a training leaves in export_before_refit/, or new files with --input give "
                "honest ones"
            )
        ]
    return []


def _unknown(text: str) -> EvaluationWarning:
    return EvaluationWarning(code="unknown-training", text=text)


def _trained(text: str) -> EvaluationWarning:
    return EvaluationWarning(code="trained-on-these-rows", text=text)


def leak_warnings(rows: Rows, train: Rows) -> list[EvaluationWarning]:
    """Rows that train has too: all ids and the time are the same.

    Where there is no time, the same ids can be a new interaction. Then it is a leak if it happens more often than train
    repeats itself.
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
        allowed, what = repeated + _REPEATED, f"the same ids as a train row, but {repeated:.1%} repeat in train"
    if share <= allowed:
        return []
    text = f"{share:.1%} of the rows have {what}: they are no test; `pipeline.duplicates: last` drops repeated rows"
    return [EvaluationWarning(code="leaked-rows", text=text)]


def _keys(rows: Rows, timed: bool) -> npt.NDArray[np.uint64]:
    """A hash of ids and time for each row all of whose ids are known."""
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
    """Labels that leave nothing to tell apart."""
    if has_both_classes(positive):
        return []
    kind = "positive" if positive.any() else "negative"
    text = f"all rows are {kind}, so there is no AUC; is `pipeline.label` what it should be?"
    return [EvaluationWarning(code="one-class", text=text)]


def cold_warnings(rows: Rows, train: Rows, name: str) -> list[EvaluationWarning]:
    """Rows without new ids, though the data has many: what is measured then is how ids fare that are known."""
    share = 1 - float(rows.known(name).mean())
    expected, where = expected_cold(train, name)
    if expected < _MANY_COLD or share >= _FEW_COLD * expected:
        return []
    text = (
        f"{share:.1%} of the rows have a {name} that train does not know, but {expected:.1%} {where}: the numbers are "
        "of known ids, and in service new ones come; `pipeline.split.method: time` holds them out too"
    )
    return [EvaluationWarning(code="no-cold-ids", text=text)]


def expected_cold(train: Rows, name: str) -> tuple[float, str]:
    """The share of rows of new ids to expect, from train alone, and where it was seen.

    With timestamps: of the last tenth of the rows, those of ids without an earlier one. Without: the ids that occur
    once, over the rows, which is how likely the next row is of a new id (I. J. Good, "The Population Frequencies of
    Species and the Estimation of Population Parameters", 1953); all rows out of vocabulary count as such.
    """
    codes, known = train.codes[name], train.ids[name].known
    if train.timestamps is not None and len(train):
        cut = np.quantile(train.timestamps, 0.9)
        last = train.timestamps >= cut
        before = np.zeros(max(known, int(codes.max()) + 1), bool)
        before[codes[~last]] = True
        before[known:] = False
        return float((~before[codes[last]]).mean()), "of the last tenth of train by time have a new one"
    counts = np.bincount(codes, minlength=known)
    once = int((counts[:known] == 1).sum() + counts[known:].sum())
    return once / max(len(train), 1), "are to be expected, from the ids that train has once"


def bias_warnings(baselines: list[Baseline]) -> list[EvaluationWarning]:
    """Vectors that make the order of the rows worse than it is without them."""
    (gain,) = [baseline.auc_gain for baseline in baselines if baseline.name == "biases alone"]
    if gain.value is None or gain.value >= 0:
        return []
    chance = "" if gain.high is not None and gain.high < 0 else " (it may be chance)"
    text = (
        f"the AUC is {-gain.value:.4f} below that of biases alone{chance}: the vectors bring nothing; try more "
        "`trainer.l2`, or --stage tune"
    )
    return [EvaluationWarning(code="below-biases", text=text)]


def mean_warnings(
    probability: Probabilities, positive: Positive, users: npt.NDArray[np.int64]
) -> list[EvaluationWarning]:
    """A mean prediction off the share of positive rows by more than a tenth of it, and by more than chance allows."""
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
        f"the mean prediction is {share + difference:.4f}, but {share:.4f} of the rows are positive: they are not like "
        "those that the probability was calibrated on"
    )
    return [EvaluationWarning(code="off-in-the-mean", text=text)]
