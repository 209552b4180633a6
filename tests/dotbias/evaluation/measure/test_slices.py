"""Checks each grouping of rows by hand, and slices with too few rows for a number."""

from __future__ import annotations

import numpy as np

from dotbias.evaluation.measure.slices import Grouping, groupings, measure_slices
from dotbias.evaluation.results import Slice, slices_csv
from dotbias.evaluation.rows import Rows
from tests.dotbias.evaluation.conftest import make_rows, no_progress

# Items 0 to 19, item i in 20 - i train rows, all of user 0 but for one row of user 1.
TRAIN = make_rows(
    {
        "user": [0] * 209 + [1],
        "item": [item for item in range(20) for _ in range(20 - item)],
        "device": [0] * 210,
    }
)
ROWS = make_rows(
    {"user": [0, 0, 1, 1, 2], "item": [0, 1, 18, 19, 20], "device": [0, 0, 1, 2, 1]},
    timestamps=[0, 25 * 86_400, 26 * 86_400, 60 * 86_400, 100 * 86_400],
    known={"user": 2, "item": 20, "device": 1},
)


def groups(rows: Rows) -> dict[str, list[str]]:
    """Returns the value of each row, by kind; "" without one."""
    found = groupings(rows, TRAIN, "user", "item", "s")
    return {grouping.kind: [grouping.values[g] if g >= 0 else "" for g in grouping.group] for grouping in found}


def test_by_hand() -> None:
    assert groups(ROWS) == {
        "user: warm or cold": ["warm", "warm", "warm", "warm", "cold"],
        "item: warm or cold": ["warm", "warm", "warm", "warm", "cold"],
        "device: warm or cold": ["warm", "warm", "cold", "cold", "cold"],
        "item: popularity decile": [
            "1 (most popular): 19-20 train rows",
            "1 (most popular): 19-20 train rows",
            "10: 1-2 train rows",
            "10: 1-2 train rows",
            "",
        ],
        "user: train rows": ["100-499", "100-499", "1-4", "1-4", "0"],
        "device": ["device0", "device0", "device1", "device2", "device1"],
        "time (UTC)": [
            "1970-01-01 to 1970-01-26",
            "1970-01-01 to 1970-01-26",
            "1970-01-26 to 1970-02-20",
            "1970-02-20 to 1970-03-17",
            "1970-03-17 to 1970-04-11",
        ],
    }


def test_short_times_are_told_to_the_minute() -> None:
    rows = make_rows({"user": [0, 0], "item": [0, 0], "device": [0, 0]}, timestamps=[0, 7200])
    assert groups(rows)["time (UTC)"] == [
        "1970-01-01T00:00 to 1970-01-01T00:30",
        "1970-01-01T01:30 to 1970-01-01T02:00",
    ]


def test_buckets_are_among_all_others() -> None:
    rows = make_rows(
        {"user": [0, 0, 0], "item": [0, 0, 0], "device": [0, 1, 1]},
        known={"user": 2, "item": 20, "device": 1},
        named=False,
    )
    assert groups(rows)["device"] == ["device0", "all others", "all others"]
    assert "time (UTC)" not in groups(rows)


def measured(group: np.ndarray, positive: np.ndarray, users: np.ndarray) -> list[Slice]:
    p = np.linspace(0.1, 0.9, len(group)).astype(np.float32)
    return measure_slices(iter([Grouping("kind", ["a", "b", "c"], group)]), p, positive, users, no_progress)


def test_a_slice_that_says_too_little_says_why() -> None:
    group = np.repeat([0, 1, 2], [49, 60, 100])
    positive = np.arange(209) % 2 == 0
    positive[49:109] = True
    users = np.arange(209)
    few, one_class, enough = measured(group, positive, users)
    assert (few.auc.value, few.log_loss.value, few.note) == (None, None, "fewer than 50 rows")
    assert (one_class.auc.value, one_class.note) == (None, "all rows are positive")
    assert one_class.log_loss.value is not None
    assert enough.auc.value is not None and enough.auc.low is not None and enough.note == ""
    assert (enough.rows, enough.positives, enough.users) == (100, 50, 100)
    (few_users,) = measured(np.zeros(100, int), positive[:100], np.arange(100) % 5)
    assert few_users.auc.value is not None and few_users.auc.low is None and few_users.note == "fewer than 10 users"


def test_the_table_has_a_line_for_each() -> None:
    slices = measured(np.arange(200) % 2, np.arange(200) % 3 == 0, np.arange(200))
    header, first, second = slices_csv(slices).splitlines()
    assert header.startswith("kind,value,rows,positives,users,prediction_mean,label_mean,auc,auc_low,auc_high,log_loss")
    assert first.startswith("kind,a,100,34,100,") and second.startswith("kind,b,100,33,100,")
    assert slices_csv([]).count("\n") == 1
