"""`JoinIndices` gives tokens their indices by a join, for a vocabulary of which no worker can hold a table.

Each batch asks every partition of the vocabulary once, for its distinct tokens there; the answers come back to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from pipeline.beam.threaded_map import ThreadedFlatMap
from pipeline.rows.token_hash import TOKEN_TYPES, token_hashes
from pipeline.vocabulary.frequency import deserialize, serialize

# Tokens that a partition looks up together at least; each look-up hashes the tokens of the partition anew.
LOOKED_UP_TOGETHER = 1 << 20

# The file of a batch and its offset there.
Place: TypeAlias = tuple[int, int]
# A feature, and a partition of its vocabulary.
Partition: TypeAlias = tuple[str, int]


class Batch(Protocol):
    """Holds rows with tokens, and their place in the input."""

    @property
    def file(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def rows(self) -> pa.RecordBatch: ...
    def _replace(self, *, rows: pa.RecordBatch) -> Any: ...


class JoinIndices(beam.PTransform):
    """Replaces the tokens of features by their indices, int32, as `tft.apply_vocabulary` does with a table.

    No step holds more than a partition of a vocabulary.

    Args:
        batch_type: the class of the batches, a NamedTuple.
        num_oov_buckets: by feature.
        indices: by feature, (partition, serialized (token, index)), from `SortedVocabulary`.
        sizes: (feature, size of its vocabulary).
        num_partitions: number of partitions.
    """

    def __init__(
        self,
        batch_type: type[Batch],
        num_oov_buckets: Mapping[str, int],
        indices: Mapping[str, beam.PCollection],
        sizes: beam.PCollection,
        num_partitions: int,
    ) -> None:
        super().__init__()
        self._batch_type = batch_type
        self._num_oov_buckets = dict(num_oov_buckets)
        self._indices = indices
        self._sizes = sizes
        self._num_partitions = num_partitions

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        placed = batches | "Place" >> beam.Map(lambda batch: ((batch.file, batch.offset), batch)).with_output_types(
            tuple[Place, self._batch_type]  # type: ignore[name-defined]
        )
        asked = batches | "Ask" >> beam.ParDo(
            ThreadedFlatMap(ask, list(self._num_oov_buckets), self._num_partitions)
        ).with_output_types(tuple[Partition, tuple[Place | None, bytes]])
        known = [
            indices
            | f"Indices[{name}]"
            >> beam.Map(_of_feature, name).with_output_types(tuple[Partition, tuple[Place | None, bytes]])
            for name, indices in self._indices.items()
        ]
        answers = (
            (asked, *known)
            | "AskedAndKnown" >> beam.Flatten()
            | "GroupPartitions" >> beam.GroupByKey()
            | "Answer" >> beam.FlatMap(answer).with_output_types(tuple[Place, tuple[str, int, bytes]])
        )
        return (
            {"batch": placed, "answers": answers}
            | "GroupPlaces" >> beam.CoGroupByKey()
            | "Replace"
            >> beam.Map(
                replace_tokens, self._num_oov_buckets, self._num_partitions, beam.pvalue.AsDict(self._sizes)
            ).with_output_types(self._batch_type)
        )


def _of_feature(part: tuple[int, bytes], name: str) -> tuple[Partition, tuple[Place | None, bytes]]:
    return (name, part[0]), (None, part[1])


def ask(
    batch: Batch, features: Iterable[str], num_partitions: int
) -> Iterator[tuple[Partition, tuple[Place | None, bytes]]]:
    """Yields the distinct tokens of a batch for each partition of each feature that has any."""
    for name in features:
        tokens, _ = distinct(batch.rows[name])
        for number, positions in _by_partition(tokens, num_partitions):
            asked = pa.RecordBatch.from_arrays([tokens.take(pa.array(positions))], ["token"])
            yield (name, number), ((batch.file, batch.offset), serialize(asked))


def answer(
    grouped: tuple[Partition, Iterable[tuple[Place | None, bytes]]],
) -> Iterator[tuple[Place, tuple[str, int, bytes]]]:
    """Yields for each batch that asks a partition the indices of its tokens, int32; -1 for those that are not there."""
    (name, number), values = grouped
    # The questions may be more than fit into memory, so they are read in a second pass, as they come.
    parts = [deserialize(data) for place, data in values if place is None]
    known = pa.concat_batches(parts) if parts else None
    together = max(LOOKED_UP_TOGETHER, 0 if known is None else len(known))
    held: list[tuple[Place, pa.Array]] = []
    num_held = 0
    for place, data in values:
        if place is not None:
            held.append((place, deserialize(data)["token"]))
            num_held += len(held[-1][1])
            if num_held >= together:
                yield from _look_up(name, number, held, known)
                held, num_held = [], 0
    if held:
        yield from _look_up(name, number, held, known)


def _look_up(
    name: str, number: int, held: list[tuple[Place, pa.Array]], known: pa.RecordBatch | None
) -> Iterator[tuple[Place, tuple[str, int, bytes]]]:
    tokens = pa.concat_arrays([tokens for _, tokens in held])
    if known is None:
        found = np.full(len(tokens), -1, np.int32)
    else:
        places = pc.index_in(tokens, value_set=known["token"])
        found = known["index"].take(places).fill_null(-1).to_numpy()
    start = 0
    for place, of_batch in held:
        yield place, (name, number, found[start : start + len(of_batch)].tobytes())
        start += len(of_batch)


def replace_tokens(
    grouped: tuple[Place, dict[str, Iterable[Any]]],
    num_oov_buckets: Mapping[str, int],
    num_partitions: int,
    sizes: Mapping[str, int],
) -> Any:
    """Puts the answers into the batch. A token that is in no answer gets the index of its OOV bucket."""
    (batch,) = grouped[1]["batch"]
    answers = {(name, number): np.frombuffer(data, np.int32) for name, number, data in grouped[1]["answers"]}
    rows = batch.rows
    for name, buckets in num_oov_buckets.items():
        tokens, of_rows = distinct(rows[name])
        indices = np.full(len(tokens), -1, np.int32)
        for number, positions in _by_partition(tokens, num_partitions):
            indices[positions] = answers[name, number]
        missing = indices < 0
        indices[missing] = sizes[name] + oov_buckets(tokens.filter(pa.array(missing)), buckets)
        field = pa.field(name, pa.int32())
        rows = rows.set_column(rows.schema.get_field_index(name), field, pa.array(indices[of_rows]))
    return batch._replace(rows=rows)


def distinct(column: pa.Array) -> tuple[pa.Array, npt.NDArray[np.int32]]:
    """Returns the distinct tokens, by their first row, and for each row `[rows]` the position of its token there."""
    encoded = column.dictionary_encode()
    tokens = encoded.dictionary
    tokens = tokens if pa.types.is_integer(tokens.type) else tokens.cast(TOKEN_TYPES["string"])
    return tokens, encoded.indices.to_numpy()


def _by_partition(tokens: pa.Array, num_partitions: int) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """Yields the positions of the tokens of each partition that has any; as `frequency.partitions` divides them."""
    partition = token_hashes(tokens) % np.uint64(num_partitions)
    order = np.argsort(partition, kind="stable")
    bounds = np.searchsorted(partition[order], np.arange(num_partitions + 1))
    for number in np.flatnonzero(np.diff(bounds)).tolist():
        yield number, order[bounds[number] : bounds[number + 1]]


def oov_buckets(tokens: pa.Array, num_buckets: int) -> npt.NDArray[np.int64]:
    """Returns the OOV bucket of each token as `tf.lookup.StaticVocabularyTable` does: FarmHash64 of its text."""
    if num_buckets == 1 or len(tokens) == 0:
        return np.zeros(len(tokens), np.int64)
    texts = tokens.cast(pa.large_string()) if pa.types.is_integer(tokens.type) else tokens
    return tf.strings.to_hash_bucket_fast(texts.to_numpy(zero_copy_only=False), num_buckets).numpy()
