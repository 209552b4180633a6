"""Checks that messages bring each row to its key, in the input's order, in one step and in two."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.beam.messages import gather, scatter, scatter_again
from pipeline.output.fan_out import group_width

SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])
WITH_KEY = SCHEMA.append(pa.field("key", pa.int32()))

Messages = dict[int, list[bytes]]


def batches_of(sizes: list[int], keys: int) -> list[pa.RecordBatch]:
    """Makes batches whose ids number all rows in the input's order."""
    draws, start, made = np.random.default_rng(7), 0, []
    for size in sizes:
        ids = np.arange(start, start + size)
        drawn = draws.integers(0, keys, size).astype(np.int32)
        made.append(pa.record_batch([ids, [f"é{n % 13}" for n in ids], drawn], schema=WITH_KEY))
        start += size
    return made


def one_step(batches: list[pa.RecordBatch]) -> Messages:
    sent: Messages = {}
    for number, batch in enumerate(batches):
        # Places do not rise with the numbers' text: file 10 comes after file 9.
        place, compressed = (number // 3, number), number % 2 == 0
        for key, message in scatter(batch.drop_columns(["key"]), batch["key"].to_numpy(), *place, compressed):
            sent.setdefault(key, []).append(message)
    return sent


def two_steps(batches: list[pa.RecordBatch], width: int, rows_at_once: int) -> tuple[Messages, Messages]:
    to_groups: Messages = {}
    for number, batch in enumerate(batches):
        for group, message in scatter(batch, batch["key"].to_numpy() // width, number // 3, number):
            to_groups.setdefault(group, []).append(message)
    sent: Messages = {}
    for messages in to_groups.values():
        # They arrive in any order.
        random.Random(3).shuffle(messages)
        for key, message in scatter_again(messages, WITH_KEY, "key", rows_at_once):
            sent.setdefault(key, []).append(message)
    return to_groups, sent


def expected(batches: list[pa.RecordBatch], key: int) -> pa.Table:
    rows = pa.Table.from_batches(batches, WITH_KEY)
    return rows.filter(pa.compute.equal(rows["key"], key)).drop_columns(["key"])


@given(st.lists(st.integers(0, 700), min_size=1, max_size=40), st.integers(1, 60), st.integers(1, 5000))
def test_both_ways_give_the_rows_in_the_order_of_the_input(sizes: list[int], keys: int, rows_at_once: int) -> None:
    batches = batches_of(sizes, keys)
    one = one_step(batches)
    _, two = two_steps(batches, group_width(keys), rows_at_once)
    assert one.keys() == two.keys()
    for key in one:
        assert gather(one[key][::-1], SCHEMA).equals(expected(batches, key))
        assert gather(two[key], SCHEMA).equals(expected(batches, key))


@pytest.mark.parametrize(("num_batches", "keys"), [(50, 100), (30, 97)])
def test_two_steps_send_few_messages(num_batches: int, keys: int) -> None:
    rows = 2000
    batches = batches_of([rows] * num_batches, keys)
    width = group_width(keys)
    to_groups, sent = two_steps(batches, width, rows)
    first, second = (sum(map(len, messages.values())) for messages in (to_groups, sent))
    assert first <= num_batches * width
    assert second <= (num_batches + width) * width
    assert sum(map(len, one_step(batches).values())) == num_batches * keys > 3 * (first + second)


def test_no_rows() -> None:
    assert list(scatter(pa.record_batch([[], []], schema=SCHEMA), np.array([], np.int32), 0, 0)) == []
    assert list(scatter_again([], WITH_KEY, "key", 10)) == []
    assert gather([], SCHEMA).equals(SCHEMA.empty_table())
