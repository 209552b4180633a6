"""Measures the model on slices: rows grouped by what is known about their user, item, features and time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dotbias.evaluation.measure.bootstrap import CORE, FEWEST_USERS, estimates, num_resamples
from dotbias.evaluation.measure.metrics import Positive, Probabilities, has_both_classes
from dotbias.evaluation.results import Estimate, Slice
from dotbias.evaluation.rows import Rows
from pipeline.manifest import Progress

# With fewer rows, an AUC is mostly chance.
FEWEST_ROWS = 50
# Enough to fix the ends of an interval to a tenth of its width; slices are many.
_MOST_RESAMPLES = 250
# For a further feature, only this many tokens, those with the most rows, are slices.
_TOKENS = 10
# Users are grouped by their number of train rows; these are the lower ends.
_ACTIVITY = (1, 5, 10, 20, 50, 100, 500)


class Grouping(NamedTuple):
    """Puts rows into groups: `group` is `[rows]`, an index into `values`, or -1 for none."""

    kind: str
    values: list[str]
    group: npt.NDArray[np.int64]


def groupings(rows: Rows, train: Rows, user: str, item: str, timestamp_unit: str) -> Iterator[Grouping]:
    """Makes all groupings of the rows.

    Args:
        rows: the rows to evaluate.
        train: the train rows, with the same codes.
        user: the feature that users are grouped by.
        item: the feature that items are grouped by.
        timestamp_unit: unit of `rows.timestamps`, by its name in NumPy.
    """
    for name in rows.ids:
        yield Grouping(f"{name}: warm or cold", ["warm", "cold"], np.where(rows.known(name), 0, 1))
    yield _popularity(rows, train, item)
    yield _activity(rows, train, user)
    for name in rows.ids:
        if name not in (user, item):
            yield token_grouping(rows, name)
    if rows.timestamps is not None and len(rows):
        yield _quarters(rows.timestamps, timestamp_unit)


def train_counts(rows: Rows, train: Rows, name: str) -> npt.NDArray[np.int64]:
    """Counts the train rows of the id of each row, `[rows]`; 0 for an id that train does not have."""
    return np.append(train.id_counts(name), 0)[np.minimum(rows.codes[name], train.ids[name].known)]


def _popularity(rows: Rows, train: Rows, item: str) -> Grouping:
    """Groups rows by tenths of the known items, ordered by train rows."""
    known, counts = train.ids[item].known, train.id_counts(item)
    order = np.argsort(-counts, kind="stable")
    decile_of = np.empty(known, np.int64)
    decile_of[order] = np.arange(known) * 10 // max(known, 1)
    values = []
    for decile in range(10):
        members = counts[decile_of == decile]
        span = f"{members.min():,}-{members.max():,} train rows" if len(members) else "no items"
        values.append(f"{decile + 1}{' (most popular)' if decile == 0 else ''}: {span}")
    group = np.append(decile_of, -1)[np.minimum(rows.codes[item], known)]
    return Grouping(f"{item}: popularity decile", values, group)


def _activity(rows: Rows, train: Rows, user: str) -> Grouping:
    highest = [str(high - 1) for high in _ACTIVITY[1:]]
    values = ["0", *(f"{low}-{high}" for low, high in zip(_ACTIVITY, highest, strict=False)), f"{_ACTIVITY[-1]}+"]
    group = np.searchsorted(_ACTIVITY, train_counts(rows, train, user), side="right")
    return Grouping(f"{user}: train rows", values, group)


def token_grouping(rows: Rows, name: str) -> Grouping:
    """Groups rows by the values of a feature: the ten with the most rows, and all others."""
    counts = np.bincount(rows.codes[name], minlength=len(rows.ids[name].tokens))
    # OOV buckets have no name.
    counts = counts if rows.ids[name].named else counts[: rows.ids[name].known]
    frequent = np.argsort(-counts, kind="stable")[:_TOKENS]
    frequent = frequent[counts[frequent] > 0]
    group_of = np.full(len(rows.ids[name].tokens), len(frequent))
    group_of[frequent] = np.arange(len(frequent))
    values = [str(rows.ids[name].tokens[int(code)]) for code in frequent]
    return Grouping(name, [*values, "all others"], group_of[rows.codes[name]])


def _quarters(timestamps: npt.NDArray[np.int64], unit: str) -> Grouping:
    """Groups rows by four equal parts of the time that they span."""
    first, last = int(timestamps.min()), int(timestamps.max())
    edges = [first + (last - first) * quarter // 4 for quarter in range(1, 4)]
    moments = np.array([first, *edges, last]).astype(f"datetime64[{unit}]")
    # The time of day is shown only if the quarters are shorter than days.
    precision = "D" if moments[-1] - moments[0] >= np.timedelta64(8, "D") else "m"
    texts = moments.astype(f"datetime64[{precision}]").astype(str)
    values = [f"{start} to {end}" for start, end in itertools.pairwise(texts)]
    return Grouping("time (UTC)", values, np.searchsorted(edges, timestamps, side="left"))


def measure_slices(
    found: Iterator[Grouping],
    probability: Probabilities,
    positive: Positive,
    clusters: npt.NDArray[np.int64],
    progress: Progress,
) -> list[Slice]:
    """Measures AUC and log loss of each slice with rows; `clusters`, `[rows]`, are the users to resample."""
    slices = []
    done = 0
    for grouping in found:
        for number, value in enumerate(grouping.values):
            index = np.flatnonzero(grouping.group == number)
            if len(index):
                slices.append(_measure(grouping.kind, value, probability[index], positive[index], clusters[index]))
                done += len(index)
                progress("slices", done, None, {})
    return slices


def _measure(kind: str, value: str, p: Probabilities, y: Positive, clusters: npt.NDArray[np.int64]) -> Slice:
    users = len(np.unique(clusters))
    nothing = Estimate(value=None)
    measured = {"auc": nothing, "log-loss": nothing}
    note = ""
    if len(y) < FEWEST_ROWS:
        note = f"fewer than {FEWEST_ROWS} rows"
    else:
        resamples = min(num_resamples(len(y)), _MOST_RESAMPLES)
        measured = estimates(p, y, clusters, metrics=CORE, resamples=resamples)
        if not has_both_classes(y):
            note = f"all rows are {'positive' if y[0] else 'negative'}"
        elif users < FEWEST_USERS:
            note = f"fewer than {FEWEST_USERS} users"
    return Slice(
        kind=kind,
        value=value,
        rows=len(y),
        positives=int(y.sum()),
        users=users,
        prediction_mean=float(p.mean(dtype=np.float64)),
        label_mean=float(y.mean()),
        auc=measured["auc"],
        log_loss=measured["log-loss"],
        note=note,
    )
