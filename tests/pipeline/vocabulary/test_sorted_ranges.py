"""Compares a vocabulary that is sorted in ranges with `FrequencyVocabulary`, byte for byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from pipeline.manifest import DotbiasError
from pipeline.vocabulary import sorted_ranges
from pipeline.vocabulary.frequency import (
    FrequencyVocabulary,
    TokenType,
    _pairs,
    deserialize,
    frequency_order,
    serialize,
)
from pipeline.vocabulary.sorted_ranges import (
    SortedVocabulary,
    cut,
    in_frequency_order,
    number_tokens,
    sample,
)
from pipeline.vocabulary.transform import as_lists

FILES = ("item.txt", "item.counts.txt", "item.json")


def make(  # type: ignore[no-untyped-def]
    kind: type[FrequencyVocabulary], directory: Path, token_type: TokenType, threshold: int | None, top_k: int | None
):
    paths = [str(directory / name) for name in FILES]
    return kind("item", *paths, str(directory / ".tmp"), token_type, threshold, top_k, 3)


def draw(token_type: TokenType, rows: int) -> list[np.ndarray]:  # type: ignore[type-arg]
    """Returns batches of tokens: a few frequent ones, and a tail of which most occur once or twice."""
    numbers = np.random.default_rng(5).zipf(1.2, rows) % 3000 - 7
    tokens = numbers if token_type == "int64" else np.array([b"t\xc3\xa4 %d" % number for number in numbers], object)
    return [tokens[start::5] for start in range(5)]


@pytest.mark.parametrize(
    ("token_type", "threshold", "top_k"), [("int64", 2, 300), ("int64", None, None), ("string", 1, 1001)]
)
def test_the_files_are_those_of_a_sort_by_one_worker(
    tmp_path: Path, token_type: TokenType, threshold: int | None, top_k: int | None
) -> None:
    batches = draw(token_type, 4000)
    lists = [as_lists(pa.record_batch({"item": pa.array(batch), "other": np.arange(len(batch))})) for batch in batches]
    with beam.Pipeline(FnApiRunner()) as pipeline:
        table = make(FrequencyVocabulary, tmp_path / "table", token_type, threshold, top_k)
        _ = pipeline | "Arrays" >> beam.Create([(batch,) for batch in batches]) | table
        joined = make(SortedVocabulary, tmp_path / "join", token_type, threshold, top_k)
        indices, written = pipeline | "Batches" >> beam.Create(lists) | joined
        numbered = indices | beam.FlatMap(lambda part: zip(*map(pa.Array.to_pylist, deserialize(part[1])), strict=True))
        directory = tmp_path / "join"
        assert_that(numbered, lambda found: check_numbers(found, directory))
        sizes = written | beam.Map(
            lambda sized: sized == ("item", len((directory / FILES[0]).read_bytes().split()) // WORDS[token_type])
        )
        assert_that(sizes, equal_to([True]), label="Sizes")
    for name in FILES:
        assert (tmp_path / "table" / name).read_bytes() == (tmp_path / "join" / name).read_bytes()
    # More than one range has tokens.
    assert len(list((tmp_path / "join/.tmp/ranges").glob("*.tokens"))) > 4


WORDS = {"int64": 1, "string": 2}


def check_numbers(found: Sequence[tuple[int | bytes, int]], directory: Path) -> None:
    lines = (directory / FILES[0]).read_bytes().split(b"\n")[:-1]
    text = [token if isinstance(token, bytes) else b"%d" % token for token, _ in found]
    assert {index: token for token, (_, index) in zip(text, found, strict=True)} == dict(enumerate(lines))
    assert len(found) == len(lines)


def test_no_token_survives(tmp_path: Path) -> None:
    batch = as_lists(pa.record_batch({"item": [1, 2, 3]}))
    with pytest.raises(DotbiasError, match="no token occurs 2 times"), beam.Pipeline(FnApiRunner()) as pipeline:
        _ = pipeline | beam.Create([batch]) | make(SortedVocabulary, tmp_path, "int64", 2, None)


def test_no_tokens(tmp_path: Path) -> None:
    with beam.Pipeline(FnApiRunner()) as pipeline:
        _, written = pipeline | beam.Create([]) | make(SortedVocabulary, tmp_path, "int64", 2, None)
        assert_that(written, equal_to([("item", 0)]))
    assert (tmp_path / FILES[0]).read_bytes() == b""


_counts = st.dictionaries(st.integers(0, 300), st.integers(1, 4), min_size=1, max_size=120)


@given(_counts, st.integers(1, 5), st.integers(1, 9), st.integers(1, 40))
def test_ranges_have_all_tokens_in_order(
    counts: dict[int, int], num_partitions: int, num_ranges: int, sampled: int
) -> None:
    tokens = np.array(list(counts))
    parts = [
        in_frequency_order([serialize(_pairs(of_part, [counts[token] for token in of_part.tolist()], "int64"))])
        for of_part in (tokens[tokens % num_partitions == number] for number in range(num_partitions))
    ]
    samples = [sample(part, sampled) for part in parts]
    ranges: dict[int, list[bytes]] = {}
    for part in parts:
        # The order of the samples is that of their arrival.
        for number, pairs in cut(part, samples[::-1], num_ranges):
            ranges.setdefault(number, []).append(pairs)
    assert set(ranges) <= set(range(num_ranges))
    in_order = [deserialize(in_frequency_order(ranges[number])) for number in sorted(ranges)]
    assert pa.Table.from_batches(in_order).to_pylist() == [
        {"token": token, "count": count}
        for token, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    ]


def test_no_range_is_much_larger_than_the_others() -> None:
    """Not even where nearly all tokens have the same count."""
    random = np.random.default_rng(3)
    parts = []
    for number in range(10):
        tokens = np.arange(number, 100_000, 10)
        counts = np.where(random.random(len(tokens)) < 0.9, 1, random.integers(1, 9, len(tokens)))
        parts.append(in_frequency_order([serialize(_pairs(tokens, counts, "int64"))]))
    samples = [sample(part, sorted_ranges.SAMPLE // 10) for part in parts]
    sizes = np.zeros(16, np.int64)
    for part in parts:
        for number, pairs in cut(part, samples, 16):
            sizes[number] += len(deserialize(pairs))
    assert sizes.sum() == 100_000
    assert sizes.max() < 1.1 * 100_000 / 16


@pytest.mark.parametrize(("top_k", "kept"), [(None, 4), (12, 4), (11, 3), (5, 0)])
def test_numbers_of_a_range(top_k: int | None, kept: int) -> None:
    pairs = _pairs([9, 7, 8, 6], [5, 4, 4, 3], "int64")
    assert frequency_order(pairs["token"], pairs["count"].to_numpy()).tolist() == [0, 1, 2, 3]
    (numbered,) = number_tokens((2, serialize(pairs)), {0: 5, 1: 3, 2: 4, 3: 7}, top_k, 1)
    batch = deserialize(numbered[1])
    assert batch["token"].to_pylist() == [9, 7, 8, 6][:kept]
    assert batch["index"].to_pylist() == [8, 9, 10, 11][:kept]
