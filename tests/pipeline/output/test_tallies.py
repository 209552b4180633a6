from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config import PipelineConfig
from pipeline.input.interactions import LABEL, Interactions, by_reason
from pipeline.input.parsing import Rejected
from pipeline.input.sources import Source
from pipeline.manifest import DotbiasError, InputFile
from pipeline.output.shards import EncodedRows, Layout
from pipeline.output.tallies import (
    LABEL_UNITS,
    Tally,
    add_tallies,
    check_same_rows,
    count_encoded,
    count_read,
    count_splits,
    plan_layout,
)
from pipeline.rows.splits import is_eval

FILES = [InputFile(path=name, bytes=500, modified=0.0) for name in ("a.csv", "b.csv")]
SOURCE = Source(FILES, FILES)


def config(**fields: object) -> PipelineConfig:
    return PipelineConfig.model_validate(
        {
            "columns": {"user": "int64", "item": "string", "rating": "float32"},
            "label": {"column": "rating", "threshold": 4.0, "scale": [0.5, 5.0], "soft_weight": 0.8},
            "features": {"user": {"side": "user"}, "item": {"side": "item"}},
            "rows_per_shard": 1000,
            **fields,
        }
    )


def test_count_interactions() -> None:
    rows = pa.record_batch({"user": np.arange(1000)})
    rejected = [Rejected(5, "bad", b"x" * 1000), Rejected(9, "worse", b"y"), Rejected(11, "bad", b"z")]
    batch = Interactions(1, 0, rows, by_reason(1, 0, rejected), out_of_window=4, duplicates=2)
    eval_rows = int(is_eval(config(), None, batch).sum())
    assert count_splits(batch, config(), None).rows == {"train": 1000 - eval_rows, "eval": eval_rows, "duplicates": 2}
    tally = count_read(batch)
    assert tally.rows == {"read": 1007, "out_of_window": 4}
    assert tally.rejected == {"bad": 2, "worse": 1}
    # The first of each reason, cut short.
    assert tally.examples == {"bad": (1, 5, b"x" * 200), "worse": (1, 9, b"y")}


def test_count_encoded() -> None:
    # Ratings 0.5, 3.5, 4 and 5, twice each; the last two rows are eval rows.
    labels = np.float32([0, 0.8 * 3 / 4.5, 0.8 * 3.5 / 4.5 + 0.2, 1] * 2)
    rows = pa.record_batch(
        {
            "user": pa.array([0, 1, 2, 3, 4, 5, 6, 7], pa.int32()),
            "item": pa.array([0, 0, 0, 0, 0, 0, 0, 9], pa.int32()),
            LABEL: labels,
        }
    )
    shards = np.array([0, 1, 2, 0, 1, 2, 3, 4], np.int32)
    tally = count_encoded(EncodedRows(0, 0, rows, shards), Layout(3, 2), {"user": 5, "item": 9}, config())
    assert tally.rows == {"train": 6, "eval": 2}
    assert tally.positive_rows == {"train": 2, "eval": 2}
    sums = {split: labels / LABEL_UNITS for split, labels in tally.label_sums.items()}
    assert sums == {split: pytest.approx(float(labels[at].sum())) for split, at in SPLIT_ROWS.items()}
    # Indices of 5 and 9 on are out-of-vocabulary buckets.
    assert tally.oov_rows == {("user", "train"): 1, ("user", "eval"): 2, ("item", "train"): 0, ("item", "eval"): 1}


SPLIT_ROWS = {"train": slice(0, 6), "eval": slice(6, 8)}


def test_the_first_timestamp_of_each_split() -> None:
    columns = {"user": "int64", "item": "string", "rating": "float32", "at": "int64"}
    rows = pa.record_batch({"at": [7, 5, 6], LABEL: pa.array([0, 1, 0], pa.float32())})
    with_time = config(columns=columns, timestamp_column="at")
    tallies = [
        count_encoded(EncodedRows(0, 0, rows, np.array(shards, np.int32)), Layout(2, 1), {}, with_time)
        for shards in ([0, 1, 1], [2, 1, 0])
    ]
    assert [tally.first_timestamp for tally in tallies] == [{"train": 5}, {"train": 5, "eval": 7}]
    assert add_tallies(tallies).first_timestamp == {"train": 5, "eval": 7}
    later = Tally(first_timestamp={"train": 3, "eval": 9})
    assert add_tallies([*tallies, later]).first_timestamp == {"train": 3, "eval": 7}


def test_adding_up_does_not_depend_on_the_order() -> None:
    tallies = [
        Tally(Counter(read=3), Counter(bad=1), {"bad": (1, 5, b"x")}, Counter(train=1), Counter(train=2), Counter()),
        Tally(Counter(read=4), Counter(bad=2), {"bad": (0, 9, b"y")}, Counter(), Counter(eval=4), Counter()),
        Tally(Counter(), Counter(worse=2), {"worse": (0, 1, b"z")}, Counter(), Counter(train=1), Counter()),
        Tally(oov_rows=Counter({("user", "train"): 2})),
    ]
    total = Tally(
        rows=Counter(read=7),
        rejected=Counter(bad=3, worse=2),
        examples={"bad": (0, 9, b"y"), "worse": (0, 1, b"z")},
        positive_rows=Counter(train=1),
        label_sums=Counter(train=3, eval=4),
        oov_rows=Counter({("user", "train"): 2}),
    )
    for order in itertools.permutations(tallies):
        assert add_tallies(order) == total
        # In two steps, as workers do.
        assert add_tallies([add_tallies(order[:2]), add_tallies(order[2:])]) == total
    assert add_tallies([]) == Tally()


def test_layout() -> None:
    tally = Tally(Counter(read=10_001, train=9001, eval=999), Counter(bad=1))
    assert plan_layout(tally, config(), SOURCE, "d/rejected") == Layout(10, 1)


@pytest.mark.parametrize(
    ("tally", "message"),
    [
        (Tally(), "the input has no rows: a.csv, and 1 other file; 1,000 bytes."),
        (
            Tally(Counter(read=1000, train=998), Counter(bad=2), {"bad": (1, 77, b"1,\xff")}),
            "2 of 1,000 rows are rejected, more than `pipeline.max_rejected_fraction` 0.001 allows. "
            r"Most often (2): bad, as in b.csv at byte 77: '1,\\xff'. All are in d/rejected.",
        ),
        (
            Tally(Counter(read=1000), Counter(bad=900, worse=100), {}, not_kept=Counter(bad=250)),
            "1,000 of 1,000 rows are rejected, more than `pipeline.max_rejected_fraction` 0.001 allows. "
            "Most often (900): bad. 750 of them are in d/rejected.",
        ),
        (
            Tally(Counter(read=3, eval=3)),
            "no row is left to train on: 3 read, 0 rejected, 0 out of the window, 3 in eval.",
        ),
    ],
)
def test_rows_that_are_not_worth_writing(tally: Tally, message: str) -> None:
    with pytest.raises(DotbiasError) as error:
        plan_layout(tally, config(), SOURCE, "d/rejected")
    assert str(error.value) == message


def test_as_many_rejected_rows_as_are_allowed() -> None:
    tally = Tally(Counter(read=10_000, train=9999), Counter(bad=1), {"bad": (1, 77, b"")})
    assert plan_layout(tally, config(), SOURCE, "d/rejected") == Layout(10, 0)
    everything = Tally(Counter(read=1000), Counter(bad=1000), {"bad": (1, 77, b"")})
    with pytest.raises(DotbiasError, match="no row is left to train on"):
        plan_layout(everything, config(max_rejected_fraction=1), SOURCE, "d/rejected")


def test_two_passes_that_saw_different_rows() -> None:
    first = Tally(Counter(read=10, train=8, eval=1))
    check_same_rows(first, Tally(Counter(train=8, eval=1)))
    with pytest.raises(DotbiasError, match="the input changed while it was read: 1 eval rows in the first pass, 2"):
        check_same_rows(first, Tally(Counter(train=8, eval=2)))
