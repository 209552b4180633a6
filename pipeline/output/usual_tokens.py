"""Finds, for each user or item, the tokens that its other features have in most of the rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.beam.grouping import GroupMessages
from pipeline.manifest import join, usual_name
from pipeline.output.attempts import WrittenFile
from pipeline.rows.token_hash import TOKEN_TYPES
from pipeline.storage.files import read_file, write_file
from pipeline.vocabulary.combinations import SEPARATOR, count_combinations, first_tokens
from pipeline.vocabulary.frequency import (
    CountTokens,
    deserialize,
    frequency_order,
    lines_of,
    merge_in_turn,
    partitions,
    serialize,
)
from pipeline.vocabulary.transform import without_lists


class WriteUsualTokens(beam.PTransform):
    """Writes `usual/<feature>.txt` for all features of a side but the first, and yields a `WrittenFile` for each.

    Line n has the feature's token in most of the rows with token n of the vocabulary of the first feature. Of
    combinations that are as frequent, it is from that with the least text.

    Args:
        features: the features of the side, the first with encoding `vocabulary`.
        directory: where to write.
        vocabulary_path: the vocabulary of the first feature.
        temporary: directory for files that are not complete yet.
        num_partitions: how many workers can merge counts at the same time.
        counts: batches of (combination, count), serialized, that are added to what is counted; None without.
        after: yields something once the vocabulary is written.
    """

    def __init__(
        self,
        features: Sequence[str],
        directory: str,
        vocabulary_path: str,
        temporary: str,
        num_partitions: int,
        counts: beam.PCollection | None,
        after: beam.PCollection,
    ) -> None:
        super().__init__()
        self._features = list(features)
        self._places = (directory, vocabulary_path, temporary)
        self._num_partitions = num_partitions
        self._counts = counts
        self._after = after

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        count = beam.ParDo(CountTokens(_CountBatch(self._features), self._num_partitions, first_tokens))
        counted = batches | "CountCombinations" >> count
        if self._counts is not None:
            known = self._counts | "PartitionCounts" >> beam.FlatMap(
                lambda data, number: partitions(deserialize(data), number, first_tokens), self._num_partitions
            ).with_output_types(tuple[int, bytes])
            counted = (counted, known) | "AddCounts" >> beam.Flatten()
        return (
            counted
            | "GroupPartitions" >> GroupMessages()
            | "MostFrequent" >> beam.Map(_most_frequent).with_output_types(tuple[int, bytes])
            | "GroupSide" >> GroupMessages()
            | "WriteTokens" >> beam.FlatMap(_write, self._features, *self._places, beam.pvalue.AsList(self._after))
        )


class _CountBatch:
    """Counts the combinations of a batch for TFT; an object, since Beam has to send it to workers."""

    def __init__(self, features: Sequence[str]) -> None:
        self._features = features

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return count_combinations(without_lists(batch.select(self._features)), self._features)


def _most_frequent(partition: tuple[int, Iterable[bytes]]) -> tuple[int, bytes]:
    """Keeps the most frequent combination of each first token of a partition, all under key 0."""
    merged = merge_in_turn(map(deserialize, partition[1]))
    ordered = merged.take(pa.array(frequency_order(merged["token"], merged["count"].to_numpy())))
    firsts = pa.table({"first": first_tokens(ordered["token"]), "position": np.arange(len(ordered))})
    chosen = firsts.group_by("first", use_threads=False).aggregate([("position", "min")])["position_min"]
    return 0, serialize(ordered.take(chosen.combine_chunks()))


def _write(
    chosen: tuple[int, Iterable[bytes]],
    features: Sequence[str],
    directory: str,
    vocabulary_path: str,
    temporary: str,
    after: Sequence[object],
) -> Iterator[WrittenFile]:
    # Only its arrival matters.
    del after
    combinations = pa.chunked_array([deserialize(batch)["token"] for batch in chosen[1]]).combine_chunks()
    vocabulary = pc.split_pattern(pa.scalar(read_file(vocabulary_path), TOKEN_TYPES["string"]), SEPARATOR).values[:-1]
    ordered = combinations.take(pc.index_in(vocabulary, value_set=first_tokens(combinations)))
    tokens = pc.split_pattern(ordered, SEPARATOR).flatten()
    for number, name in enumerate(features[1:], start=1):
        text = lines_of(tokens.take(pa.array(np.arange(number, len(tokens), len(features)))))
        write_file(join(directory, usual_name(name)), text, temporary)
        yield WrittenFile(usual_name(name), len(text))
