"""Counts input files into the cache (`CountFiles`), and reads from the cache what `analyze_rows` would count."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.beam.adding import AddUp
from pipeline.config import PipelineConfig, day_length
from pipeline.input.interactions import Interactions, RejectedRows, by_reason, some_rows
from pipeline.input.parsing import Block, Parsed
from pipeline.input.ranges import label_rows
from pipeline.input.sources import ReadInteractions, Source
from pipeline.storage.matching import check_unchanged
from pipeline.vocabulary.combinations import combination_name, count_combinations
from pipeline.vocabulary.counts_cache import CountsCache, FileCounts, vocabulary_days, window_days
from pipeline.vocabulary.frequency import count_tokens, deserialize, serialize

# A number of a file, and its counts.
Counted: TypeAlias = tuple[int, FileCounts]


@dataclass
class RowCounts:
    """Counts the rows of a file, inside the window or not.

    `rows` are by day. `rejected` rows are by reason; `rejected_by_day` counts them by (reason, day), None if the day is
    not known.
    """

    rows: Counter[int] = field(default_factory=Counter)
    rejected: dict[str, RejectedRows] = field(default_factory=dict)
    rejected_by_day: Counter[tuple[str, int | None]] = field(default_factory=Counter)

    def add(self, other: RowCounts) -> None:
        """Adds the counts of other blocks."""
        self.rows.update(other.rows)
        self.rejected_by_day.update(other.rejected_by_day)
        for reason, rows in other.rejected.items():
            self.rejected.setdefault(reason, RejectedRows()).add(rows)

    def bound(self) -> None:
        """Drops rejected rows if there are too many."""
        for rows in self.rejected.values():
            rows.bound()


@dataclass(frozen=True)
class BlockCounts:
    """Holds the counts of a block of rows; `tokens` is (day, token, count) by feature."""

    file: int
    rows: RowCounts
    tokens: dict[str, bytes]

    @property
    def num_read(self) -> int:
        """Returns the number of rows of the block."""
        return self.rows.rows.total() + self.rows.rejected_by_day.total()


class CountFiles(beam.PTransform):
    """Yields (number, `FileCounts`) for each file of the input; reads those that the cache lacks, and adds them to it.

    One worker merges the counts of one feature of one file, in memory in proportion to its distinct (day, token).
    """

    def __init__(self, source: Source, config: PipelineConfig, cache: CountsCache) -> None:
        super().__init__()
        self._source = source
        self._config = config
        self._cache = cache

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        new = self._source.only(self._cache.uncounted())
        blocks = pipeline | ReadInteractions(new, self._config, "analyze", count_block, BlockCounts)
        tokens = (
            blocks
            | "Tokens" >> beam.FlatMap(_tokens_of).with_output_types(tuple[tuple[int, str], bytes])
            | "GroupTokens" >> beam.GroupByKey()
            | "WriteTokens" >> beam.Map(_write_tokens, self._cache)
        )
        rows = (
            blocks
            | "Rows" >> beam.Map(lambda block: (block.file, block.rows)).with_output_types(tuple[int, RowCounts])
            | "RowsOfFile" >> beam.CombinePerKey(AddUp(RowCounts))
        )
        # A file without rows has an entry too.
        files = pipeline | "Uncounted" >> beam.Create(new.numbered)
        counted = (
            {"files": files, "rows": rows, "tokens": tokens}
            | "OfFile" >> beam.CoGroupByKey()
            | "WriteEntry" >> beam.Map(_write_entry, self._cache, self._config)
        )
        known = pipeline | "Known" >> beam.Create(list(self._cache.known.items()))
        return (counted, known) | beam.Flatten() | beam.Reshuffle()


def count_block(number: int, parse: Callable[[], Block | None], config: PipelineConfig) -> BlockCounts | None:
    """Counts a block of rows; None if no row begins in it."""
    block = parse()
    if block is None:
        return None
    offset, parsed = block
    labelled = label_rows(parsed, config)
    days = _days(labelled.rows, config)
    order = np.argsort(days, kind="stable") if len(days) and (np.diff(days) < 0).any() else None
    rows, days = (labelled.rows, days) if order is None else (labelled.rows.take(pa.array(order)), days[order])
    distinct, first = np.unique(days, return_index=True)
    bounds = [*first.tolist(), len(days)]
    tokens = {}
    for name, count in counters(config).items() if len(rows) else ():
        of_day = [
            _with_day(day, count(rows[begin:end]))
            for day, (begin, end) in zip(distinct.tolist(), itertools.pairwise(bounds), strict=True)
        ]
        tokens[name] = serialize(pa.Table.from_batches(of_day).combine_chunks().to_batches()[0])
    counted = _rejected(number, offset, parsed, labelled, config)
    counted.rows.update(dict(zip(distinct.tolist(), np.diff(bounds).tolist(), strict=True)))
    return BlockCounts(number, counted, tokens)


def counters(config: PipelineConfig) -> dict[str, Callable[[pa.RecordBatch], pa.RecordBatch]]:
    """Returns by name what counts the tokens of rows: of each vocabulary, and the combinations of a side."""
    found: dict[str, Callable[[pa.RecordBatch], pa.RecordBatch]] = {
        name: functools.partial(_count_column, name=name)
        for name, feature in config.features.items()
        if feature.encoding == "vocabulary"
    }
    for features in config.combined_features:
        found[combination_name(features)] = functools.partial(count_combinations, features=features)
    return found


def _count_column(rows: pa.RecordBatch, name: str) -> pa.RecordBatch:
    return count_tokens(rows[name])


def _days(rows: pa.RecordBatch, config: PipelineConfig) -> npt.NDArray[np.int64]:
    return rows[config.timestamp_column].to_numpy() // day_length(config.timestamp_unit)


def _with_day(day: int, pairs: pa.RecordBatch) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array(np.full(len(pairs), day, np.int32)), *pairs.columns], ["day", *pairs.schema.names]
    )


def _rejected(file: int, block: int, parsed: Parsed, labelled: Parsed, config: PipelineConfig) -> RowCounts:
    """Counts the rejected rows, with the day of those that could be parsed but have a label out of range."""
    day_at: dict[int, int] = {}
    if len(labelled.rejected) > len(parsed.rejected):
        days = _days(parsed.rows, config).tolist()
        day_at = {offset: day for (offset, _), day in zip(parsed.places(), days, strict=True)}
    by_day = Counter((row.reason, day_at.get(row.offset)) for row in labelled.rejected)
    return RowCounts(rejected=by_reason(file, block, labelled.rejected, day_at), rejected_by_day=by_day)


def _tokens_of(block: BlockCounts) -> Iterator[tuple[tuple[int, str], bytes]]:
    for feature, counts in block.tokens.items():
        yield (block.file, feature), counts


def _write_tokens(counts: tuple[tuple[int, str], Iterable[bytes]], cache: CountsCache) -> tuple[int, str]:
    (number, feature), batches = counts
    cache.write_tokens(number, feature, pa.Table.from_batches(map(deserialize, batches)))
    return number, feature


def _write_entry(of_file: tuple[int, dict[str, Iterable[Any]]], cache: CountsCache, config: PipelineConfig) -> Counted:
    number, groups = of_file
    (file,) = groups["files"]
    found = next(iter(groups["rows"]), RowCounts())
    rejected: dict[str, dict[int, int]] = {}
    for (reason, day), count in found.rejected_by_day.items():
        if day is not None:
            rejected.setdefault(reason, {})[day] = count
    counts = FileCounts(
        path=file.path,
        rows=dict(sorted(found.rows.items())),
        rejected={reason: dict(sorted(rejected[reason].items())) for reason in sorted(rejected)},
        undated={reason: count for (reason, day), count in sorted(found.rejected_by_day.items()) if day is None},
        ends={reason: (rows.end[0], rows.end[2]) for reason, rows in sorted(found.rejected.items()) if rows.end},
    )
    # The key says that the file is as it was listed. If it has grown, the entry is for this run alone.
    of_no_use = counts.is_outside(window_days(config)) and not counts.rows_in(vocabulary_days(config))
    check_unchanged([file], may_grow=of_no_use)
    cache.write_entry(number, counts, found.rejected)
    return number, counts


def known_batches(counted: Counted, cache: CountsCache, config: PipelineConfig) -> Iterator[Interactions]:
    """Yields the rejected rows of a file, and the count outside the window.

    If all dated rows of a file are outside the window, its rows that cannot be parsed count as outside too.
    """
    number, counts = counted
    days, nothing = window_days(config), pa.RecordBatch.from_arrays([], [])
    if counts.is_outside(days):
        yield Interactions(number, 0, nothing, {}, out_of_window=counts.total)
        return
    rejected = counts.rejected_in(days)
    outside = counts.total - counts.rows_in(days) - sum(rejected.values())
    rows = cache.read_rejected(number) if rejected else {}
    of_window = {}
    for reason, count in rejected.items():
        kept = [row for row in rows.get(reason, []) if row.day is None or days.have(row.day)]
        end = counts.ends.get(reason)
        of_window[reason] = some_rows(kept, count, end and (end[0], number, end[1]))
    if outside or of_window:
        yield Interactions(number, 0, nothing, of_window, out_of_window=outside)


def known_tokens(counted: Counted, feature: str, cache: CountsCache, config: PipelineConfig) -> Iterator[bytes]:
    """Yields a feature's (token, count) of a file, for the days that the vocabulary counts."""
    number, counts = counted
    days = vocabulary_days(config)
    if counts.rows_in(days):
        table = cache.read_tokens(number, feature, days).combine_chunks()
        yield from map(serialize, table.to_batches())
