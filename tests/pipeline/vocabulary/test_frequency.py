"""Compares the vocabulary with `collections.Counter`, and its bytes on different paths through the graph."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.manifest import DotbiasError
from pipeline.rows.token_hash import token_hashes
from pipeline.vocabulary import frequency as vocabulary
from pipeline.vocabulary.frequency import (
    CountTokens,
    FrequencyVocabulary,
    TokenType,
    VocabularyInfo,
    _CountArray,
    frequency_order,
    lines_of,
    merge_counts,
    merge_in_turn,
    merge_partition,
)

Token = int | bytes
ODD_STRINGS = [
    b"a",
    b"A",
    b"a ",
    b" a",
    b'a"b',
    b'"a"',
    b"a,b",
    b"a\tb",
    "ä".encode(),
    "日本".encode(),
    b"10",
    b"9",
    b"-",
]
_strings = st.one_of(st.sampled_from(ODD_STRINGS), st.text("ab", min_size=1, max_size=3).map(str.encode))
_integers = st.one_of(st.integers(-3, 12), st.sampled_from([-(2**63), 2**63 - 1, 100]))
# Bundles of batches of tokens; the job hands on no empty batches.
_bundles = st.sampled_from(["int64", "string"]).flatmap(
    lambda token_type: st.tuples(
        st.just(token_type),
        st.lists(
            st.lists(st.lists(_integers if token_type == "int64" else _strings, min_size=1, max_size=12), max_size=4),
            max_size=4,
        ),
    )
)


def make(  # type: ignore[no-untyped-def]
    directory: Path,
    token_type: TokenType,
    threshold: int | None = 1,
    top_k: int | None = None,
    partitions: int = 1,
):
    return FrequencyVocabulary(
        feature="item",
        path=str(directory / "item.txt"),
        counts_path=str(directory / "item.counts.txt"),
        info_path=str(directory / "item.json"),
        temporary=str(directory / ".tmp"),
        token_type=token_type,
        frequency_threshold=threshold,
        top_k=top_k,
        num_partitions=partitions,
    )


def array(tokens: Sequence[Token], token_type: str) -> tuple[np.ndarray]:  # type: ignore[type-arg]
    """Makes what TFT hands to an analyzer."""
    return (np.array(tokens, np.int64 if token_type == "int64" else object),)


def expected(tokens: Sequence[Token], threshold: int, top_k: int | None) -> list[tuple[Token, int]]:
    counts = [(token, count) for token, count in Counter(tokens).items() if count >= threshold]
    return sorted(counts, key=lambda pair: (-pair[1], pair[0]))[:top_k]


def written(directory: Path, token_type: str) -> list[tuple[Token, int]]:
    tokens = (directory / "item.txt").read_bytes().split(b"\n")
    counts = (directory / "item.counts.txt").read_bytes().split(b"\n")
    assert tokens.pop() == counts.pop() == b""
    pairs = [(int(t) if token_type == "int64" else t, int(c)) for t, c in zip(tokens, counts, strict=True)]
    info = VocabularyInfo.model_validate_json((directory / "item.json").read_text())
    assert (info.size, info.rows) == (len(pairs), sum(count for _, count in pairs))
    assert info.fingerprint == hashlib.sha256((directory / "item.txt").read_bytes()).hexdigest()
    return pairs  # type: ignore[return-value]


def without_beam(
    transform: FrequencyVocabulary, bundles: list[list[list[Token]]], token_type: TokenType, partitions: int
) -> None:
    """Runs the steps of the transform, bundle by bundle, in this process."""
    grouped = defaultdict(list)
    for batches in bundles:
        count = CountTokens(_CountArray(token_type), partitions)
        count.start_bundle()
        keyed = [pair for batch in batches for pair in count.process(array(batch, token_type))]
        for key, pairs in [*keyed, *(value.value for value in count.finish_bundle())]:
            assert 0 <= key < partitions
            grouped[key].append(pairs)
    threshold = transform._frequency_threshold
    assert threshold is not None
    survivors = [merge_partition(partition, threshold, transform._top_k)[1] for partition in grouped.items()]
    transform._write((0, [vocabulary.serialize(vocabulary._pairs([], [], token_type)), *survivors]), threshold)


def test_a_merge_holds_little_more_than_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0

    def merge(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
        nonlocal most
        most = max(most, sum(map(len, batches)))
        return merge_counts(batches)

    monkeypatch.setattr(vocabulary, "merge_counts", merge)
    pairs = [vocabulary._pairs(np.arange(50) + start % 3, np.ones(50, np.int64), "int64") for start in range(100)]
    merged = merge_in_turn(iter(pairs), least=60)
    # 52 tokens, each batch has 50 pairs.
    assert most <= 2 * 52 + 50
    assert merged.sort_by("token").equals(merge_counts(pairs).sort_by("token"))


@settings(max_examples=200)
@given(
    _bundles, st.integers(1, 4), st.sampled_from([None, 1, 2, 5]), st.integers(1, 8), st.sampled_from([1, 10, 10**6])
)
def test_against_a_counter(
    tmp_path_factory: pytest.TempPathFactory,
    typed: tuple[TokenType, list[list[list[Token]]]],
    threshold: int,
    top_k: int | None,
    partitions: int,
    buffered: int,
) -> None:
    token_type, bundles = typed
    directory = tmp_path_factory.mktemp("vocabulary")
    tokens = [token for batches in bundles for batch in batches for token in batch]
    pairs = expected(tokens, threshold, top_k)
    transform = make(directory, token_type, threshold, top_k, partitions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "MAX_BUFFERED_PAIRS", buffered)
        if tokens and not pairs:
            with pytest.raises(DotbiasError, match="'item': no token occurs"):
                without_beam(transform, bundles, token_type, partitions)
            return
        without_beam(transform, bundles, token_type, partitions)
    # Without tokens there is a file that TFT can load, of a token that never occurred.
    assert written(directory, token_type) == (pairs or [(0 if token_type == "int64" else b"0", 0)])


CASES: list[tuple[TokenType, list[list[Token]], int, int | None]] = [
    # Integers by value, not as text; ties by rising token.
    ("int64", [[10, 9, -1], [10, 9, -1], [7]], 1, None),
    ("int64", [[10, 9, -1], [10, 9, 5], [7]], 2, None),
    ("string", [[*ODD_STRINGS, b"a"], ODD_STRINGS[::-1]], 2, None),
    ("string", [[b"b", b"a", b"c"], [b"b", b"c"]], 1, 2),
    # The least of the top k is one of several with its count.
    ("int64", [[3, 2, 1, 0]], 1, 2),
]


@pytest.mark.parametrize(("token_type", "batches", "threshold", "top_k"), CASES)
def test_on_beam(
    tmp_path: Path, token_type: TokenType, batches: list[list[Token]], threshold: int, top_k: int | None
) -> None:
    with beam.Pipeline(FnApiRunner()) as pipeline:
        path = (
            pipeline
            | beam.Create([array(batch, token_type) for batch in batches])
            | make(tmp_path, token_type, threshold, top_k, partitions=3)
        )
        assert_that(path, equal_to([str(tmp_path / "item.txt")]))
    tokens = [token for batch in batches for token in batch]
    assert written(tmp_path, token_type) == expected(tokens, threshold, top_k)
    assert not list((tmp_path / ".tmp").iterdir())


@pytest.mark.parametrize("token_type", ["int64", "string"])
def test_no_tokens_on_beam(tmp_path: Path, token_type: TokenType) -> None:
    with beam.Pipeline(FnApiRunner()) as pipeline:
        path = pipeline | beam.Create([]) | make(tmp_path, token_type)
        assert_that(path, equal_to([str(tmp_path / "item.txt")]))
    assert len(written(tmp_path, token_type)) == 1


@pytest.mark.parametrize(("once", "threshold"), [(0, 2), (9, 2), (10, 1), (30, 1)])
def test_an_open_threshold_follows_from_the_tokens_that_occur_once(tmp_path: Path, once: int, threshold: int) -> None:
    tokens = [*range(100, 100 + once), *np.arange(200 - once) % 50]
    with beam.Pipeline(FnApiRunner()) as pipeline:
        batches = [array(tokens[start::3], "int64") for start in range(3)]
        path = pipeline | beam.Create(batches) | make(tmp_path, "int64", threshold=None, top_k=55, partitions=4)
        assert_that(path, equal_to([str(tmp_path / "item.txt")]))
    assert written(tmp_path, "int64") == expected(tokens, threshold, 55)
    info = VocabularyInfo.model_validate_json((tmp_path / "item.json").read_text())
    assert info.frequency_threshold == threshold


def test_no_token_survives_on_beam(tmp_path: Path) -> None:
    with pytest.raises(DotbiasError) as error, beam.Pipeline(FnApiRunner()) as pipeline:
        _ = pipeline | beam.Create([array([1, 2, 3], "int64")]) | make(tmp_path, "int64", threshold=2, partitions=2)
    assert "no token occurs 2 times in the train rows. Lower `pipeline.features.item.frequency_threshold`" in str(
        error.value
    )


@pytest.mark.parametrize("token_type", ["int64", "string"])
def test_bytes_depend_on_the_tokens_alone(
    tmp_path: Path, token_type: TokenType, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(5)
    numbers = (random.zipf(1.3, 20_000) % 3000).tolist()
    tokens: list[Token] = numbers if token_type == "int64" else [b"token %d" % number for number in numbers]
    contents = set()
    for attempt, (partitions, batch_size, buffered) in enumerate(
        [(1, 20_000, 10**6), (7, 500, 1000), (4, 3000, 10**6)]
    ):
        monkeypatch.setattr(vocabulary, "MAX_BUFFERED_PAIRS", buffered)
        directory = tmp_path / str(attempt)
        batches = [tokens[start : start + batch_size] for start in range(0, len(tokens), batch_size)]
        random.shuffle(batches)  # type: ignore[arg-type]
        transform = make(directory, token_type, 2, None, partitions)
        without_beam(transform, [batches[::2], batches[1::2]], token_type, partitions)
        contents.add(((directory / "item.txt").read_bytes(), (directory / "item.counts.txt").read_bytes()))
    assert len(contents) == 1


def slow_hash(token: Token) -> int:
    """Computes what `token_hashes` says, one token and one byte at a time."""
    wrap = 2**64
    if isinstance(token, int):
        value = token % wrap
    else:
        base = 0x9E3779B97F4A7C15
        value = sum((byte + 1) * pow(base, place, wrap) for place, byte in enumerate(token)) % wrap
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % wrap
    value = (value ^ value >> 27) * 0x94D049BB133111EB % wrap
    return value ^ value >> 31


@given(st.one_of(st.lists(st.integers(-(2**63), 2**63 - 1)), st.lists(st.binary(max_size=30))), st.data())
def test_token_hashes(tokens: list[Token], data: st.DataObject) -> None:
    array = pa.array(tokens, pa.int64() if tokens and isinstance(tokens[0], int) else pa.large_binary())
    start = data.draw(st.integers(0, len(tokens)))
    end = data.draw(st.integers(start, len(tokens)))
    assert token_hashes(array[start:end]).tolist() == [slow_hash(token) for token in tokens[start:end]]


@pytest.mark.parametrize(
    "tokens",
    [
        pa.array(np.arange(80_000)),
        pa.array(np.arange(80_000) * 1024),
        pa.array([b"user_%06d" % number for number in range(80_000)], pa.large_binary()),
    ],
)
def test_token_hashes_spread_over_partitions(tokens: pa.Array) -> None:
    sizes = np.bincount(token_hashes(tokens) % np.uint64(8), minlength=8)
    assert np.abs(sizes - 10_000).max() < 5 * 100


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), unique_by=lambda pair: pair[0]), st.integers(1, 7))
def test_frequency_order(pairs: list[tuple[int, int]], top_k: int) -> None:
    tokens, counts = pa.array([t for t, _ in pairs], pa.int64()), np.array([c for _, c in pairs], np.int64)
    by_rank = sorted(range(len(pairs)), key=lambda position: (-pairs[position][1], pairs[position][0]))
    assert frequency_order(tokens, counts).tolist() == by_rank
    assert frequency_order(tokens, counts, top_k).tolist() == by_rank[:top_k]


@given(st.one_of(st.lists(st.integers(-(2**63), 2**63 - 1)), st.lists(st.binary(max_size=5))))
def test_lines_of(values: list[Token]) -> None:
    array = pa.array(values, pa.int64() if values and isinstance(values[0], int) else pa.large_binary())
    texts = [b"%d" % value if isinstance(value, int) else value for value in values]
    assert lines_of(array) == b"".join(text + b"\n" for text in texts)
    # A slice is a view into the same buffers.
    assert lines_of(array[1:]) == b"".join(text + b"\n" for text in texts[1:])
