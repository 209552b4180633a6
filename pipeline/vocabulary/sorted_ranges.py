"""`SortedVocabulary` makes a vocabulary that no worker can hold: sorts it on all workers, and numbers it for a join.

Tokens that reach the threshold are cut into ranges of the vocabulary's order. Each range is sorted by itself, and the
sizes of the ranges before it give its first index.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics

from pipeline.beam.row_counter import NAMESPACE
from pipeline.manifest import join
from pipeline.storage.files import open_file, write_chunks, write_file
from pipeline.vocabulary.frequency import (
    FrequencyVocabulary,
    VocabularyInfo,
    count_tokens,
    deserialize,
    frequency_order,
    lines_of,
    partitions,
    serialize,
)

# Ranges of the vocabulary, and partitions of the join. Of a billion int64 tokens each has eight million, or 0.9 GiB.
MAX_RANGES = 128
# More than one, so that a small log takes the same path as a large one.
RANGES_PER_PARTITION = 4
# Pairs that are drawn of all partitions together to choose the bounds of the ranges.
SAMPLE = 1 << 14
# Bytes of a part that are in memory while the parts are joined.
CHUNK_BYTES = 8 << 20


class WrittenPart(NamedTuple):
    """Describes the file of a range; `rows` counts the train rows whose token is in it."""

    number: int
    size: int
    rows: int


class SortedVocabulary(FrequencyVocabulary):
    """Writes the files of `FrequencyVocabulary`, byte for byte, from batches with a list of one token a row.

    Yields the indices, as (partition of the join, serialized batch of (token, index)), and (feature, size of the
    vocabulary) once its files are written. No step holds more than a partition or a range of the tokens.
    """

    def expand(self, batches: beam.PCollection) -> tuple[beam.PCollection, beam.PCollection]:
        survivors, threshold = self._survivors(batches, _CountColumn(self._feature))
        num_ranges = num_join_partitions(self._num_partitions)
        in_order = survivors | "SortPartitions" >> beam.Map(
            lambda pair: in_frequency_order([pair[1]])
        ).with_output_types(bytes)
        samples = in_order | "Sample" >> beam.Map(sample, SAMPLE // self._num_partitions or 1)
        ranges = (
            in_order
            | "CutRanges"
            >> beam.FlatMap(cut, beam.pvalue.AsList(samples), num_ranges).with_output_types(tuple[int, bytes])
            | "GroupRanges" >> beam.GroupByKey()
            | "SortRanges"
            >> beam.MapTuple(lambda number, parts: (number, in_frequency_order(parts))).with_output_types(
                tuple[int, bytes]
            )
        )
        sizes = beam.pvalue.AsDict(
            ranges | "Sizes" >> beam.MapTuple(lambda number, pairs: (number, len(deserialize(pairs))))
        )
        indices = ranges | "Number" >> beam.FlatMap(number_tokens, sizes, self._top_k, num_ranges).with_output_types(
            tuple[int, bytes]
        )
        parts = ranges | "WriteParts" >> beam.Map(self._write_part, sizes)
        written = (
            survivors
            | "CountPartitions" >> beam.combiners.Count.Globally()
            | "JoinParts" >> beam.Map(self._join_parts, beam.pvalue.AsList(parts), threshold)
        )
        return indices, written

    def _part_paths(self, number: int) -> list[str]:
        return [join(self._temporary, "ranges", f"{self._feature}.{number}.{kind}") for kind in ("tokens", "counts")]

    def _write_part(self, numbered: tuple[int, bytes], sizes: Mapping[int, int]) -> WrittenPart:
        number, _, pairs = _of_vocabulary(numbered, sizes, self._top_k)
        for path, column in zip(self._part_paths(number), pairs.columns, strict=True):
            write_file(path, lines_of(column), self._temporary)
        return WrittenPart(number, len(pairs), int(pairs["count"].to_numpy().sum()))

    def _join_parts(self, num_partitions: int, parts: Sequence[WrittenPart], threshold: int) -> tuple[str, int]:
        size = sum(part.size for part in parts)
        if size == 0 and num_partitions:
            raise self._nothing_survives(threshold)
        in_order = [self._part_paths(part.number) for part in sorted(parts)]
        digest = hashlib.sha256()
        path, counts_path, info_path = self._paths
        write_chunks(path, _digested(_chunks(tokens for tokens, _ in in_order), digest), self._temporary)
        write_chunks(counts_path, _chunks(counts for _, counts in in_order), self._temporary)
        info = VocabularyInfo(
            frequency_threshold=threshold,
            size=size,
            rows=sum(part.rows for part in parts),
            fingerprint=digest.hexdigest(),
        )
        write_file(info_path, info.model_dump_json().encode(), self._temporary)
        Metrics.counter(NAMESPACE, f"tokens_{self._feature}").inc(size)
        return self._feature, size


class _CountColumn:
    """Counts the tokens of a feature in a batch with a list of one token a row."""

    def __init__(self, feature: str) -> None:
        self._feature = feature

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return count_tokens(batch[self._feature].flatten())


def num_join_partitions(num_partitions: int) -> int:
    """Returns the number of ranges of a vocabulary, and of partitions of its join, for one counted in partitions."""
    return min(RANGES_PER_PARTITION * num_partitions, MAX_RANGES)


def in_frequency_order(parts: Iterable[bytes]) -> bytes:
    """Joins batches of (token, count) and sorts them: falling count, then rising token."""
    pairs = pa.concat_batches(list(map(deserialize, parts)))
    return serialize(pairs.take(pa.array(frequency_order(pairs["token"], pairs["count"].to_numpy()))))


def sample(pairs: bytes, size: int) -> bytes:
    """Returns at most `size` pairs, evenly spaced in the order of the batch."""
    batch = deserialize(pairs)
    places = np.linspace(0, len(batch) - 1, min(size, len(batch))).astype(np.int64)
    return serialize(batch.take(pa.array(places)))


def cut(pairs: bytes, samples: Sequence[bytes], num_ranges: int) -> Iterator[tuple[int, bytes]]:
    """Cuts a sorted batch into (range, pairs), at bounds that are evenly spaced in the samples of all batches."""
    batch, drawn = deserialize(pairs), deserialize(in_frequency_order(samples))
    inner = np.arange(1, num_ranges) * len(drawn) // num_ranges
    bounds = drawn.take(pa.array(inner[inner < len(drawn)]))
    both = pa.concat_batches([batch, bounds])
    order = frequency_order(both["token"], both["count"].to_numpy())
    # Of the pairs that come before a bound, so many are of the batch as are not bounds themselves.
    places = np.flatnonzero(order >= len(batch)) - np.arange(len(bounds))
    for number, (start, end) in enumerate(itertools.pairwise([0, *places.tolist(), len(batch)])):
        if end > start:
            yield number, serialize(batch[start:end])


def number_tokens(
    numbered: tuple[int, bytes], sizes: Mapping[int, int], top_k: int | None, num_partitions: int
) -> Iterator[tuple[int, bytes]]:
    """Yields (partition of the join, serialized (token, index)) for a sorted range."""
    _, start, pairs = _of_vocabulary(numbered, sizes, top_k)
    indices = pa.array(np.arange(start, start + len(pairs), dtype=np.int32))
    yield from partitions(pa.RecordBatch.from_arrays([pairs["token"], indices], ["token", "index"]), num_partitions)


def _of_vocabulary(
    numbered: tuple[int, bytes], sizes: Mapping[int, int], top_k: int | None
) -> tuple[int, int, pa.RecordBatch]:
    """Returns a range's number, the index of its first token, and its pairs among the first `top_k` of all."""
    number, pairs = numbered[0], deserialize(numbered[1])
    start = sum(size for other, size in sizes.items() if other < number)
    return number, start, pairs if top_k is None else pairs[: max(top_k - start, 0)]


def _chunks(paths: Iterable[str]) -> Iterator[bytes]:
    for path in paths:
        with open_file(path) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


def _digested(chunks: Iterable[bytes], digest: Any) -> Iterator[bytes]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
