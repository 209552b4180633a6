"""Checks the arithmetic of the shuffle's steps against its bounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.output.fan_out import (
    MAX_MESSAGES,
    ROWS_PER_BATCH,
    group_width,
    num_messages,
    rows_of_input,
    takes_two_steps,
)


@given(st.integers(1, 10**7))
def test_groups_are_as_many_as_their_shards(shards: int) -> None:
    width = group_width(shards)
    assert (width - 1) ** 2 < shards <= width**2
    assert math.ceil(shards / width) <= width


@pytest.mark.parametrize(
    ("rows", "shards", "one_step", "two_steps"),
    [
        # One shard has one group, whose one full batch and end are counted.
        (ROWS_PER_BATCH, 1, 1, 1 + 2),
        # No step has more messages than rows.
        (10, 1000, 10, 20),
        # A thousand batches; a hundred groups of a hundred shards.
        (1000 * ROWS_PER_BATCH, 10_000, 10**7, 1000 * 100 + (1000 + 100) * 100),
    ],
)
def test_messages(rows: int, shards: int, one_step: int, two_steps: int) -> None:
    assert num_messages(rows, shards, two_steps=False) == one_step
    assert num_messages(rows, shards, two_steps=True) == two_steps


@given(st.integers(10**6, 10**12), st.integers(1, 10**6))
def test_two_steps_take_about_twice_the_root(rows: int, shards: int) -> None:
    batches = math.ceil(rows / ROWS_PER_BATCH)
    bound = 2 * batches * group_width(shards) + group_width(shards) ** 2
    assert num_messages(rows, shards, two_steps=True) <= bound


def test_where_two_steps_begin() -> None:
    shards = 1000
    rows = MAX_MESSAGES // shards * ROWS_PER_BATCH
    assert not takes_two_steps(rows, shards)
    assert takes_two_steps(rows + 1, shards)


@pytest.mark.parametrize(
    ("form", "name", "rows"),
    [("csv", "a.csv", 100), ("csv", "a.csv.gz", 400), ("parquet", "a", 400), ("bigquery", "a", 100)],
)
def test_rows_of_an_input(form: str, name: str, rows: int) -> None:
    assert rows_of_input(2800, form, [name]) == rows
