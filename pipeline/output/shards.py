"""`WriteShards` writes encoded rows to gzip CSV shards, shuffled over the whole dataset.

Every row draws a shard, and every shard is permuted, so reading shard after shard gives a global shuffle. Rows travel
as one Arrow message for each (batch, shard), or in two steps over groups of shards (`fan_out`). All draws depend on
the seed and the rows' place in the input, and a shard's rows are put into the input's order before they are permuted,
so the bytes are the same on every runner and in either way.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.csv
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows
from isal import igzip

from pipeline.beam.grouping import GroupMessages
from pipeline.beam.messages import gather, scatter, scatter_again
from pipeline.beam.row_counter import NAMESPACE
from pipeline.beam.submission import runs_in_one_thread
from pipeline.beam.threaded_map import ThreadedCalls, ThreadedFlatMap
from pipeline.input.interactions import LABEL
from pipeline.manifest import SPLITS, Shard, join, shard_name
from pipeline.output.fan_out import ROWS_PER_BATCH, group_width
from pipeline.rows.randomness import Purpose, generator
from pipeline.storage.files import write_file

# Shards that a bundle formats and compresses at the same time; Arrow and ISA-L release the GIL.
WRITERS = 2
# ISA-L's level 1 gives files within a few percent of zlib's size, several times as fast.
GZIP_LEVEL = 1

# Rows that Arrow formats at a time; its default of 1024 takes 1.5 times as long.
CSV_ROWS = 8192
# Ratings and clicks have at most this many distinct labels among a shard's first rows; measurements have more.
FEW_LABELS = 256

# The column with each row's shard, on the way to a group of shards.
_SHARD = "_shard"


class Layout(NamedTuple):
    """Holds the number of shards of each split."""

    train: int
    eval: int

    @classmethod
    def of(cls, train_rows: int, eval_rows: int, rows_per_shard: int) -> Layout:
        """Makes shards of `rows_per_shard` rows on average; a split without rows gets no shard."""
        return cls(math.ceil(train_rows / rows_per_shard), math.ceil(eval_rows / rows_per_shard))


class EncodedRows(NamedTuple):
    """Holds an encoded batch. `shards` `[rows]` is each row's shard; eval shards are numbered after train shards."""

    file: int
    offset: int
    rows: pa.RecordBatch
    shards: np.ndarray[Any, np.dtype[np.int32]]


class WrittenShard(NamedTuple):
    split: str
    shard: Shard


def draw_shards(
    layout: Layout, is_eval: np.ndarray[Any, np.dtype[np.bool_]], seed: int, file: int, offset: int
) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Draws a shard `[rows]` for each row, in [0, layout.train) or [layout.train, layout.train + layout.eval)."""
    first = np.where(is_eval, layout.train, 0)
    count = np.where(is_eval, layout.eval, layout.train)
    uniform = generator(seed, Purpose.SHARD, file, offset).random(len(is_eval))
    return (first + (uniform * count).astype(np.int64)).astype(np.int32)


class WriteShards(beam.PTransform):
    """Writes `EncodedRows` and yields a `WrittenShard` for each shard of the layout.

    Args:
        directory: where to write.
        temporary: directory for files that are not complete yet.
        schema: the columns of the rows.
        layout: a singleton PCollection with the `Layout`.
        seed: for the order within shards.
        two_steps: whether to send the rows to groups of shards first.
    """

    def __init__(
        self,
        directory: str,
        temporary: str,
        schema: pa.Schema,
        layout: beam.PCollection,
        seed: int,
        two_steps: bool = False,
    ) -> None:
        super().__init__()
        self._directory = directory
        self._temporary = temporary
        self._schema = schema
        self._layout = layout
        self._seed = seed
        self._two_steps = two_steps

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        if self._two_steps:
            messages = (
                batches
                | "ScatterToGroups"
                >> beam.ParDo(ThreadedFlatMap(_to_groups), beam.pvalue.AsSingleton(self._layout)).with_output_types(
                    tuple[int, bytes]
                )
                | "GatherGroups" >> GroupMessages()
                | "ScatterGroups"
                >> beam.FlatMap(_from_group, self._schema.append(pa.field(_SHARD, pa.int32()))).with_output_types(
                    tuple[int, bytes]
                )
            )
        else:
            # Messages that stay where they are need no compression, which takes a twentieth of the time.
            compressed = not runs_in_one_thread(batches.pipeline.options)
            messages = batches | "Scatter" >> beam.ParDo(ThreadedFlatMap(_to_shards, compressed)).with_output_types(
                tuple[int, bytes]
            )
        return (
            messages
            | "Gather" >> GroupMessages()
            | "WriteFiles"
            >> beam.ParDo(
                _WriteFiles(self._directory, self._temporary, self._schema, self._seed),
                beam.pvalue.AsSingleton(self._layout),
            )
        )


def _to_shards(batch: EncodedRows, compressed: bool) -> Iterator[tuple[int, bytes]]:
    yield from scatter(batch.rows, batch.shards, batch.file, batch.offset, compressed)


def _to_groups(batch: EncodedRows, layout: Layout) -> Iterator[tuple[int, bytes]]:
    rows = batch.rows.append_column(_SHARD, pa.array(batch.shards))
    yield from scatter(rows, batch.shards // group_width(sum(layout)), batch.file, batch.offset)


def _from_group(gathered: tuple[int, Iterable[bytes]], schema: pa.Schema) -> Iterator[tuple[int, bytes]]:
    yield from scatter_again(gathered[1], schema, _SHARD, ROWS_PER_BATCH)


@beam.typehints.with_output_types(WrittenShard)
class _WriteFiles(beam.DoFn):
    def __init__(self, directory: str, temporary: str, schema: pa.Schema, seed: int) -> None:
        super().__init__()
        self._directory = directory
        self._temporary = temporary
        self._schema = schema
        self._seed = seed

    def start_bundle(self) -> None:
        self._calls: ThreadedCalls[WrittenShard] = ThreadedCalls(WRITERS)

    def process(self, gathered: tuple[int, Iterable[bytes]], layout: Layout) -> Iterator[WrittenShard]:
        shard, messages = gathered
        split = SPLITS[shard >= layout.train]
        index, num_shards = (shard, layout.train) if split == "train" else (shard - layout.train, layout.eval)
        # The messages are read here: only this thread may ask the runner for more of them.
        for written in self._calls.submit(self._write, split, index, num_shards, list(messages)):
            yield from self._counted(written)

    def finish_bundle(self) -> Iterator[Any]:
        for written in self._calls.drain():
            yield from map(GlobalWindows.windowed_value, self._counted(written))

    def _counted(self, written: WrittenShard) -> Iterator[WrittenShard]:
        Metrics.counter(NAMESPACE, "shards_written").inc()
        Metrics.counter(NAMESPACE, "shard_bytes_written").inc(written.shard.bytes)
        yield written

    def _write(self, split: str, index: int, num_shards: int, messages: list[bytes]) -> WrittenShard:
        rows = gather(messages, self._schema)
        order = generator(self._seed, Purpose.ORDER, SPLITS.index(split), index).permutation(len(rows))
        name = shard_name(split, index, num_shards)
        data = igzip.compress(csv_text(rows.take(pa.array(order))), GZIP_LEVEL, mtime=0)
        write_file(join(self._directory, name), data, self._temporary)
        return WrittenShard(split, Shard(path=name, rows=len(rows), bytes=len(data), crc32=zlib.crc32(data)))


def csv_text(rows: pa.Table) -> pa.Buffer:
    """Formats one row a line, without a header; strings are quoted."""
    quoting = "needed" if any(map(pa.types.is_string, rows.schema.types)) else "none"
    index = rows.schema.get_field_index(LABEL)
    labels = rows.column(index)
    if quoting == "none" and len(labels[:CSV_ROWS].unique()) <= FEW_LABELS:
        # Formatting floats takes longest, so each distinct label is formatted once.
        distinct = labels.combine_chunks().dictionary_encode()
        rows = rows.set_column(index, LABEL, distinct.dictionary.cast(pa.string()).take(distinct.indices))
    sink = pa.BufferOutputStream()
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style=quoting, batch_size=CSV_ROWS)
    pyarrow.csv.write_csv(rows, sink, options)
    return sink.getvalue()
