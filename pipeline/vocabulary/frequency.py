"""`FrequencyVocabulary` counts the tokens of a feature on all workers and writes them by falling frequency.

Counts travel as Arrow batches of (token, count), never as Python objects, in partitions by a hash of the token. One
worker holds the tokens that reach the threshold, as arrays; no other step needs memory in proportion to the vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows
from pydantic import BaseModel

from pipeline.beam.grouping import GroupMessages
from pipeline.beam.row_counter import NAMESPACE
from pipeline.beam.threaded_map import ThreadedCalls
from pipeline.manifest import DotbiasError
from pipeline.rows.token_hash import TOKEN_TYPES, token_hashes
from pipeline.storage.files import write_file
from pipeline.vocabulary.threshold import automatic_threshold

TokenType = Literal["int64", "string"]

# A bundle merges its pairs when it holds more than this.
MAX_BUFFERED_PAIRS = 2_000_000
# If a merge does not shrink the counts to this share, they and all later ones of the bundle are passed on as they are;
# merging would cost more than it saves.
WORTHWHILE_MERGE = 0.75
# Integers that Arrow formats at a time; its default of 1024 takes three times as long.
LINES_AT_ONCE = 1 << 16
# Integers are counted in an array if it has at most this many cells per token; from 25 on, a hash table is faster.
DENSE = 16


class VocabularyInfo(BaseModel):
    """Describes a vocabulary that was written. `rows` counts the train rows whose token is in it."""

    frequency_threshold: int
    size: int
    rows: int
    fingerprint: str


class FrequencyVocabulary(beam.PTransform):
    """Builds a vocabulary from batches of tokens and yields the path of its file.

    The file has one token a line, by falling count, equal counts by rising token (integers by value, strings by bytes),
    so the same tokens give the same file on every runner. `counts_path` gets the counts in the same order and
    `info_path` a `VocabularyInfo`. For `tft.experimental.ptransform_analyzer`: the input's elements are tuples with one
    array `[batch]`.

    Args:
        feature: the feature's name, for messages.
        path, counts_path, info_path: where to write.
        temporary: directory for files that are not complete yet.
        token_type: the type of the tokens; bytes arrive for `string`.
        frequency_threshold: rarer tokens are left out; None: `automatic_threshold`.
        top_k: the most tokens to keep; all if None.
        num_partitions: how many workers can merge counts at the same time.
        counts: batches of (token, count), serialized, that are added to what is counted.
    """

    def __init__(
        self,
        feature: str,
        path: str,
        counts_path: str,
        info_path: str,
        temporary: str,
        token_type: TokenType,
        frequency_threshold: int | None,
        top_k: int | None,
        num_partitions: int,
        counts: beam.PCollection | None = None,
    ) -> None:
        super().__init__()
        self._counts = counts
        self._feature = feature
        self._paths = (path, counts_path, info_path)
        self._temporary = temporary
        self._token_type = token_type
        self._frequency_threshold = frequency_threshold
        self._top_k = top_k
        self._num_partitions = num_partitions

    def __getstate__(self) -> dict[str, Any]:
        # A PCollection exists in the launcher only.
        return {**self.__dict__, "_counts": None}

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        survivors, threshold = self._survivors(batches, _CountArray(self._token_type))
        # One element must arrive even if there is no token.
        nothing = batches.pipeline | "Nothing" >> beam.Create([(0, serialize(_pairs([], [], self._token_type)))])
        return (
            (survivors, nothing)
            | beam.Flatten()
            | "GroupSurvivors" >> GroupMessages()
            | "WriteVocabulary" >> beam.Map(self._write, threshold)
        )

    def _survivors(
        self, batches: beam.PCollection, count: Callable[[Any], pa.RecordBatch]
    ) -> tuple[beam.PCollection, int | beam.pvalue.AsSingleton]:
        """Counts tokens and keeps, of each partition, those that can be in the vocabulary, all under key 0.

        Returns:
            A serialized batch of (token, count) for each partition that has tokens; and the threshold.
        """
        counted = batches | "CountTokens" >> beam.ParDo(CountTokens(count, self._num_partitions))
        if self._counts is not None:
            known = self._counts | "PartitionCounts" >> beam.FlatMap(
                lambda data, number: partitions(deserialize(data), number), self._num_partitions
            ).with_output_types(tuple[int, bytes])
            counted = (counted, known) | "AddCounts" >> beam.Flatten()
        grouped = counted | "GroupPartitions" >> GroupMessages()
        if self._frequency_threshold is not None:
            return grouped | "MergePartitions" >> beam.Map(
                merge_partition, self._frequency_threshold, self._top_k
            ).with_output_types(tuple[int, bytes]), self._frequency_threshold
        merged = grouped | "MergePartitions" >> beam.Map(merge_partition, 1, None).with_output_types(tuple[int, bytes])
        threshold = beam.pvalue.AsSingleton(
            merged
            | "CountOnce" >> beam.Map(count_once)
            | "AddUp" >> beam.CombineGlobally(_add_up)
            | "ChooseThreshold" >> beam.MapTuple(automatic_threshold)
        )
        survivors = merged | "ApplyThreshold" >> beam.Map(
            lambda pairs, top_k, threshold: (0, serialize(keep_frequent(deserialize(pairs[1]), threshold, top_k))),
            self._top_k,
            threshold,
        ).with_output_types(tuple[int, bytes])
        return survivors, threshold

    def _write(self, survivors: tuple[int, Iterable[bytes]], threshold: int) -> str:
        batches = [deserialize(batch) for batch in survivors[1]]
        pairs = pa.Table.from_batches(batches)
        if len(pairs) == 0:
            if len(batches) > 1:
                raise self._nothing_survives(threshold)
            # Without train rows another step ends the job; until then TFT needs a file that it can load.
            pairs = pa.Table.from_batches(
                [_pairs([0] if self._token_type == "int64" else [b"0"], [0], self._token_type)]
            )
        tokens, counts = pairs["token"].combine_chunks(), pairs["count"].combine_chunks().to_numpy()
        order = frequency_order(tokens, counts, self._top_k)
        tokens, counts = tokens.take(pa.array(order)), counts[order]
        text = lines_of(tokens)
        Metrics.counter(NAMESPACE, f"tokens_{self._feature}").inc(len(counts))
        info = VocabularyInfo(
            frequency_threshold=threshold,
            size=len(counts),
            rows=int(counts.sum()),
            fingerprint=hashlib.sha256(text).hexdigest(),
        )
        for path, data in zip(
            self._paths, [text, lines_of(pa.array(counts)), info.model_dump_json().encode()], strict=True
        ):
            write_file(path, data, self._temporary)
        return self._paths[0]

    def _nothing_survives(self, threshold: int) -> DotbiasError:
        return DotbiasError(
            f"feature {self._feature!r}: no token occurs {threshold} times in the train rows. "
            f"Lower `pipeline.features.{self._feature}.frequency_threshold`."
        )


class _CountArray:
    """Counts a batch as TFT gives it: a tuple with one array `[batch]`."""

    def __init__(self, token_type: TokenType) -> None:
        self._token_type = token_type

    def __call__(self, batch: tuple[npt.NDArray[Any]]) -> pa.RecordBatch:
        return _counts(batch[0], self._token_type)


@beam.typehints.with_output_types(tuple[int, bytes])
class CountTokens(beam.DoFn):
    """Counts within a bundle, so that a frequent token travels once a bundle; yields (partition, serialized counts).

    Args:
        count: counts the tokens of an element, as a batch of (token, count).
        num_partitions: number of partitions.
        key: what of the tokens decides the partition; all of it if None.
    """

    def __init__(
        self,
        count: Callable[[Any], pa.RecordBatch],
        num_partitions: int,
        key: Callable[[pa.Array], pa.Array] | None = None,
    ) -> None:
        super().__init__()
        self._count = count
        self._num_partitions = num_partitions
        self._key = key

    def start_bundle(self) -> None:
        self._calls: ThreadedCalls[pa.RecordBatch] = ThreadedCalls(1)
        self._buffer: list[pa.RecordBatch] = []
        self._buffered = 0
        # A merge of this bundle's counts has not been in vain yet.
        self._merges = True

    def process(self, batch: Any) -> Iterator[tuple[int, bytes]]:
        for pairs in self._calls.submit(self._count, batch):
            yield from self._add(pairs)

    def finish_bundle(self) -> Iterator[Any]:
        for pairs in self._calls.drain():
            yield from map(GlobalWindows.windowed_value, self._add(pairs))
        if self._buffer:
            yield from map(GlobalWindows.windowed_value, self._pass_on(merge_counts(self._buffer)))

    def _add(self, pairs: pa.RecordBatch) -> Iterator[tuple[int, bytes]]:
        if not self._merges:
            yield from self._pass_on(pairs)
            return
        self._buffer.append(pairs)
        self._buffered += len(pairs)
        if self._buffered > MAX_BUFFERED_PAIRS:
            merged = merge_counts(self._buffer)
            self._merges = len(merged) <= WORTHWHILE_MERGE * self._buffered
            self._buffer, self._buffered = [merged], len(merged)
            if not self._merges:
                self._buffer = []
                yield from self._pass_on(merged)

    def _pass_on(self, pairs: pa.RecordBatch) -> Iterator[tuple[int, bytes]]:
        yield from partitions(pairs, self._num_partitions, self._key)


def partitions(
    pairs: pa.RecordBatch, num_partitions: int, key: Callable[[pa.Array], pa.Array] | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yields the pairs by partition, which is a hash of the token, or of what `key` takes of it."""
    if num_partitions == 1:
        yield 0, serialize(pairs)
        return
    keys = pairs["token"] if key is None else key(pairs["token"])
    partition = (token_hashes(keys) % np.uint64(num_partitions)).astype(np.uint16)
    order = np.argsort(partition, kind="stable")
    ordered = pairs.take(pa.array(order))
    bounds = np.searchsorted(partition[order], np.arange(num_partitions + 1))
    for index in np.flatnonzero(np.diff(bounds)):
        yield int(index), serialize(ordered[bounds[index] : bounds[index + 1]])


def count_tokens(tokens: pa.Array) -> pa.RecordBatch:
    """Counts the tokens of an array of int64 or string."""
    if pa.types.is_integer(tokens.type):
        return _counts(tokens.to_numpy(), "int64")
    counted = tokens.cast(TOKEN_TYPES["string"]).value_counts()
    return _pairs(counted.field(0), counted.field(1), "string")


def _counts(tokens: npt.NDArray[Any], token_type: TokenType) -> pa.RecordBatch:
    if token_type == "int64" and len(tokens):
        # Python's integers cannot overflow in the difference.
        low, high = int(tokens.min()), int(tokens.max())
        if high - low < DENSE * len(tokens):
            # Dense ids need no hash table.
            counts = np.bincount(tokens - low)
            found = np.flatnonzero(counts != 0)
            return _pairs(found + low, counts[found], token_type)
    counted = pa.array(tokens, TOKEN_TYPES[token_type]).value_counts()
    return _pairs(counted.field(0), counted.field(1), token_type)


def merge_partition(
    partition: tuple[int, Iterable[bytes]], frequency_threshold: int, top_k: int | None
) -> tuple[int, bytes]:
    """Merges the counts of a partition and keeps the tokens that can be in the vocabulary, all under key 0."""
    return 0, serialize(keep_frequent(merge_in_turn(map(deserialize, partition[1])), frequency_threshold, top_k))


def keep_frequent(pairs: pa.RecordBatch, frequency_threshold: int, top_k: int | None) -> pa.RecordBatch:
    """Keeps the tokens that reach the threshold, and of these at most the `top_k` most frequent."""
    pairs = pairs.filter(pc.greater_equal(pairs["count"], frequency_threshold))
    if top_k is not None and len(pairs) > top_k:
        pairs = pairs.take(pa.array(frequency_order(pairs["token"], pairs["count"].to_numpy(), top_k)))
    return pairs


def count_once(partition: tuple[int, bytes]) -> tuple[int, int]:
    """Counts the rows of merged counts, and those whose token occurs once."""
    counts = deserialize(partition[1])["count"].to_numpy()
    return int(counts.sum()), int(np.count_nonzero(counts == 1))


def _add_up(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    rows, once = 0, 0
    for of_part, once_of_part in pairs:
        rows, once = rows + of_part, once + once_of_part
    return rows, once


def frequency_order(tokens: pa.Array, counts: npt.NDArray[np.int64], top_k: int | None = None) -> npt.NDArray[np.int64]:
    """Returns the positions of the `top_k` most frequent tokens (all if None): falling count, then rising token."""
    chosen = np.arange(len(counts))
    if top_k is not None and top_k < len(counts):
        # Only tokens that can be among the first `top_k` are sorted.
        least = np.partition(counts, len(counts) - top_k)[len(counts) - top_k]
        chosen = np.flatnonzero(counts >= least)
        tokens, counts = tokens.take(pa.array(chosen)), counts[chosen]
    # NumPy sorts integers several times as fast as Arrow, and those of 16 bits with a radix sort.
    by_token = np.argsort(tokens.to_numpy()) if pa.types.is_integer(tokens.type) else pc.sort_indices(tokens).to_numpy()
    falling = counts.max(initial=0) - counts[by_token]
    by_count = np.argsort(falling.astype(np.uint16) if falling.max(initial=0) < 2**16 else falling, kind="stable")
    return chosen[by_token[by_count]][:top_k]


def merge_counts(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Adds the counts of equal tokens, in no defined order."""
    if len(batches) == 1:
        return batches[0]
    merged = pa.Table.from_batches(batches).group_by("token", use_threads=False).aggregate([("count", "sum")])
    return _pairs(merged["token"].combine_chunks(), merged["count_sum"].combine_chunks(), None)


def merge_in_turn(batches: Iterable[pa.RecordBatch], least: int = MAX_BUFFERED_PAIRS) -> pa.RecordBatch:
    """Does what `merge_counts` does, and holds at most twice as many pairs as there are tokens, or `least`."""
    held: list[pa.RecordBatch] = []
    pairs, limit = 0, least
    for batch in batches:
        held.append(batch)
        pairs += len(batch)
        if pairs > limit:
            held = [merge_counts(held)]
            pairs = len(held[0])
            # Doubling keeps the cost of all merges in proportion to the pairs, also where they do not shrink.
            limit = max(2 * pairs, least)
    return merge_counts(held)


def lines_of(values: pa.Array) -> bytes:
    """Returns the values as text, one a line."""
    if len(values) == 0:
        return b""
    if pa.types.is_integer(values.type):
        sink = pa.BufferOutputStream()
        options = pyarrow.csv.WriteOptions(include_header=False, batch_size=LINES_AT_ONCE, quoting_style="none")
        pyarrow.csv.write_csv(pa.table({"value": values}), sink, options)
        return bytes(sink.getvalue())
    # Joining each text and an empty one with "\n" ends each line; the data buffer of the result is the file.
    nothing, end = (pa.scalar(text, pa.large_binary()).cast(values.type) for text in (b"", b"\n"))
    return bytes(pc.binary_join_element_wise(values, nothing, end).buffers()[2])


def _pairs(tokens: Any, counts: Any, token_type: TokenType | None) -> pa.RecordBatch:
    dtype = None if token_type is None else TOKEN_TYPES[token_type]
    return pa.RecordBatch.from_arrays([pa.array(tokens, dtype), pa.array(counts, pa.int64())], ["token", "count"])


def serialize(pairs: pa.RecordBatch) -> bytes:
    """Encodes a batch, to be grouped by Beam."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pairs.schema) as writer:
        writer.write_batch(pairs)
    return bytes(sink.getvalue())


def deserialize(data: bytes) -> pa.RecordBatch:
    """Decodes what `serialize` made."""
    return pa.ipc.open_stream(data).read_next_batch()
