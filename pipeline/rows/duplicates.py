"""Keeps the latest of the rows with the same tokens: `LastByTime`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.beam.grouping import GroupMessages
from pipeline.beam.messages import gather, scatter
from pipeline.config import PipelineConfig
from pipeline.input.columns import columns_to_read
from pipeline.input.interactions import LABEL, Interactions
from pipeline.rows.token_hash import TOKEN_TYPES, mix, token_hashes

# Rows of an output batch.
ROWS_PER_BATCH = 1 << 18


class LastByTime(beam.PTransform):
    """Drops all but the latest row of each combination of tokens; of equal timestamps, or without, the later row stays.

    Each batch is reduced by itself, then rows are grouped by a hash of their tokens. The `file` of an output batch is
    the number of its group, so the place of a row depends on the input alone. Rejected rows are not passed on.
    """

    def __init__(self, config: PipelineConfig, num_partitions: int) -> None:
        super().__init__()
        self._config = config
        self._num_partitions = num_partitions

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        reduced = batches | "KeepLastOfBatch" >> beam.Map(self._reduce)
        kept = (
            reduced
            | "ByTokens" >> beam.FlatMap(self._scatter).with_output_types(tuple[int, bytes])
            | "GroupTokens" >> GroupMessages()
            | "KeepLast" >> beam.FlatMap(self._keep_last)
        )
        return (kept, reduced | "Dropped" >> beam.Map(_without_rows)) | beam.Flatten()

    def _reduce(self, batch: Interactions) -> Interactions:
        rows = batch.rows.take(pa.array(self._last_positions(pa.Table.from_batches([batch.rows]))))
        return Interactions(batch.file, batch.offset, rows, {}, duplicates=len(batch.rows) - len(rows))

    def _scatter(self, batch: Interactions) -> Iterator[tuple[int, bytes]]:
        hashes = np.zeros(len(batch.rows), np.uint64)
        for name in self._config.features:
            hashes = mix(hashes ^ token_hashes(batch.rows[name].cast(TOKEN_TYPES[self._config.columns[name]])))
        partitions = (hashes % np.uint64(self._num_partitions)).astype(np.int64)
        yield from scatter(batch.rows, partitions, batch.file, batch.offset)

    def _keep_last(self, grouped: tuple[int, Iterable[bytes]]) -> Iterator[Interactions]:
        partition, messages = grouped
        rows = gather(messages, interaction_schema(self._config))
        last = self._last_positions(rows)
        duplicates = len(rows) - len(last)
        kept = rows.take(pa.array(last)).combine_chunks()
        for offset, batch in zip(range(0, len(kept), ROWS_PER_BATCH), kept.to_batches(ROWS_PER_BATCH), strict=True):
            yield Interactions(partition, offset, batch, {}, duplicates=duplicates if offset == 0 else 0)

    def _last_positions(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        time = self._config.timestamp_column
        return last_positions(
            [rows[name] for name in self._config.features],
            np.zeros(len(rows), np.int64) if time is None else rows[time].to_numpy(),
        )


def _without_rows(batch: Interactions) -> Interactions:
    return Interactions(0, 0, batch.rows[:0], {}, duplicates=batch.duplicates)


def interaction_schema(config: PipelineConfig) -> pa.Schema:
    """Returns the schema of `Interactions.rows`."""
    label = config.label.column
    fields = [
        (LABEL, pa.float32()) if column.name == label else (column.name, column.arrow_type)
        for column in columns_to_read(config)
    ]
    return pa.schema(fields if label is not None else [*fields, (LABEL, pa.float32())])


def last_positions(tokens: list[pa.ChunkedArray], timestamps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns the sorted positions of the latest row of each combination of `tokens`; of equal timestamps, the last."""
    codes: list[npt.NDArray[Any]] = [
        column.combine_chunks().dictionary_encode().indices.to_numpy() for column in tokens
    ]
    # Sorts by tokens, time, position; the sort is stable.
    order = np.lexsort([timestamps, *codes])
    is_last = np.ones(len(order), bool)
    for code in codes:
        is_last[:-1] &= code[order[1:]] == code[order[:-1]]
    is_last[:-1] = ~is_last[:-1]
    return np.sort(order[is_last])
