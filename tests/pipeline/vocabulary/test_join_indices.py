"""Compares the join with TensorFlow's lookup table."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from pipeline.vocabulary import join_indices
from pipeline.vocabulary.frequency import TokenType, partitions
from pipeline.vocabulary.join_indices import Partition, Place, answer, ask, distinct, oov_buckets, replace_tokens

KNOWN: dict[str, list[Any]] = {
    "int64": [-(2**63), -5, 0, 7, 10**12, *range(100, 150)],
    "string": ["", "a", "ä b", '"', "日本", *map(str, range(50))],
}
NEW: dict[str, list[Any]] = {"int64": [1, -1, 2**63 - 1, 99], "string": ["b", " a", "é", "x" * 40]}


class Rows(NamedTuple):
    file: int
    offset: int
    rows: pa.RecordBatch


def table(token_type: TokenType, num_oov_buckets: int) -> tf.lookup.StaticVocabularyTable:
    known = KNOWN[token_type]
    dtype = tf.as_dtype(token_type)
    initializer = tf.lookup.KeyValueTensorInitializer(
        tf.constant(known, dtype), tf.constant(list(range(len(known))), tf.int64)
    )
    return tf.lookup.StaticVocabularyTable(initializer, num_oov_buckets, lookup_key_dtype=dtype)


def join(batches: list[Rows], token_type: TokenType, buckets: int, num_partitions: int) -> list[Rows]:
    """Runs the steps of the join in this process; questions, indices and answers arrive in any order."""
    known = pa.record_batch({"token": KNOWN[token_type], "index": pa.array(range(len(KNOWN[token_type])), pa.int32())})
    grouped: dict[Partition, list[tuple[Place | None, bytes]]] = defaultdict(list)
    for batch in batches:
        for key, question in ask(batch, ["id"], num_partitions):
            grouped[key].append(question)
    tokens = known["token"] if token_type == "int64" else known["token"].cast(pa.large_binary())
    for number, data in partitions(known.set_column(0, "token", tokens), num_partitions):
        grouped["id", number].append((None, data))
    answers: dict[Place, list[tuple[str, int, bytes]]] = defaultdict(list)
    for key, values in grouped.items():
        random.Random(2).shuffle(values)
        for place, indices in answer((key, values)):
            answers[place].append(indices)
    sizes = {"id": len(known)}
    return [
        replace_tokens((place, {"batch": [batch], "answers": answers[place]}), {"id": buckets}, num_partitions, sizes)
        for batch in batches
        for place in [(batch.file, batch.offset)]
    ]


@pytest.mark.parametrize("token_type", ["int64", "string"])
@pytest.mark.parametrize("buckets", [1, 5])
@pytest.mark.parametrize(("num_partitions", "together"), [(1, 1 << 20), (7, 1)])
def test_indices_are_those_of_the_table(
    token_type: TokenType, buckets: int, num_partitions: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join_indices, "LOOKED_UP_TOGETHER", together)
    draws = random.Random(4)
    drawn = [draws.choices(KNOWN[token_type] + NEW[token_type], k=size) for size in (200, 1, 90)]
    batches = [
        Rows(0, 10 * number, pa.record_batch({"label": np.zeros(len(tokens)), "id": tokens}))
        for number, tokens in enumerate(drawn)
    ]
    made = join(batches, token_type, buckets, num_partitions)
    lookup = table(token_type, buckets)
    for before, after in zip(batches, made, strict=True):
        expected = lookup.lookup(tf.constant(before.rows["id"].to_pylist(), tf.as_dtype(token_type)))
        assert after.rows.schema.names == ["label", "id"]
        assert after.rows["id"].to_pylist() == expected.numpy().tolist()
        assert after[:2] == before[:2]


def test_questions_are_not_held_together(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0

    def look_up(name: str, number: int, held: list[Any], known: pa.RecordBatch | None) -> list[Any]:
        nonlocal most
        most = max(most, sum(len(tokens) for _, tokens in held))
        return []

    monkeypatch.setattr(join_indices, "LOOKED_UP_TOGETHER", 100)
    monkeypatch.setattr(join_indices, "_look_up", look_up)
    batches = [Rows(0, number, pa.record_batch({"id": np.arange(60)})) for number in range(50)]
    questions = [question for batch in batches for _, question in ask(batch, ["id"], 1)]
    assert list(answer((("id", 0), questions))) == []
    assert most == 120


@pytest.mark.parametrize("token_type", ["int64", "string"])
def test_no_tokens_miss(token_type: TokenType) -> None:
    tokens, positions = distinct(pa.array(KNOWN[token_type] * 2))
    assert len(tokens) == len(KNOWN[token_type])
    assert positions.tolist() == [*range(len(tokens))] * 2
    assert oov_buckets(tokens[:0], 3).tolist() == []
