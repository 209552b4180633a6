"""Counts rows by their outcome, labels, and out-of-vocabulary tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow.compute as pc
from apache_beam.metrics import Metrics

from pipeline.beam.row_counter import NAMESPACE
from pipeline.config import PipelineConfig
from pipeline.input.interactions import LABEL, Interactions
from pipeline.input.labels import positive_at
from pipeline.input.mistakes import advice, no_rows
from pipeline.input.sources import Source
from pipeline.manifest import SPLITS, DotbiasError
from pipeline.output.shards import EncodedRows, Layout
from pipeline.rows.splits import is_eval
from pipeline.vocabulary.counts_cache import Days, FileCounts, vocabulary_days, window_days

# Bytes of a rejected row that an error message shows.
EXAMPLE_LENGTH = 200
LABEL_UNITS = 2**32


@dataclass
class Tally:
    """Holds sums over batches.

    The keys of `rows` are "read" and the outcomes in `manifest.Counts`; rejected rows are counted by reason.
    `examples` holds a rejected row for each reason, the first of those that are kept of a block: (file, offset, text).
    `not_kept` counts the rejected rows that are not written.
    """

    rows: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[int, int, bytes]] = field(default_factory=dict)
    positive_rows: Counter[str] = field(default_factory=Counter)
    # In units of 2**-32: a sum of integers does not depend on the order of additions.
    label_sums: Counter[str] = field(default_factory=Counter)
    # Keys are (feature, split).
    oov_rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    # The least timestamp by split.
    first_timestamp: dict[str, int] = field(default_factory=dict)
    # Numbers of the input files that have rows inside, and outside, of the window.
    inside: set[int] = field(default_factory=set)
    outside: set[int] = field(default_factory=set)
    not_kept: Counter[str] = field(default_factory=Counter)

    @property
    def left_out(self) -> set[int]:
        """Returns the numbers of the files whose rows all lie outside of the window."""
        return self.outside - self.inside


def add_tallies(tallies: Iterable[Tally]) -> Tally:
    """Adds the sums and keeps the first example of each reason."""
    total = Tally()
    for tally in tallies:
        total.rows.update(tally.rows)
        total.rejected.update(tally.rejected)
        for reason, example in tally.examples.items():
            total.examples[reason] = min(example, total.examples.get(reason, example))
        total.positive_rows.update(tally.positive_rows)
        total.label_sums.update(tally.label_sums)
        total.oov_rows.update(tally.oov_rows)
        for split, first in tally.first_timestamp.items():
            total.first_timestamp[split] = min(first, total.first_timestamp.get(split, first))
        total.inside |= tally.inside
        total.outside |= tally.outside
        total.not_kept.update(tally.not_kept)
    return total


def show_in_counters(tally: Tally) -> Tally:
    """Adds a tally to the job's counters, which the page of a job shows while it runs; returns the tally."""
    for outcome, count in tally.rows.items():
        Metrics.counter(NAMESPACE, f"rows_{outcome}").inc(count)
    for reason, count in tally.rejected.items():
        Metrics.counter(NAMESPACE, f"rows_rejected: {reason}").inc(count)
    return tally


def count_read(batch: Interactions) -> Tally:
    """Counts the rows of a batch as read: all rows, rejected rows by reason, rows outside the window."""
    rejected = Counter({reason: rows.count for reason, rows in batch.rejected.items()})
    examples = {
        reason: min((row.file, row.offset, row.text[:EXAMPLE_LENGTH]) for row in rows.rows)
        for reason, rows in batch.rejected.items()
        if rows.rows
    }
    rows = Counter(read=batch.num_read, out_of_window=batch.out_of_window)
    inside, outside = ({batch.file} if number else set() for number in (len(batch.rows), batch.out_of_window))
    return Tally(rows=rows, rejected=rejected, examples=examples, inside=inside, outside=outside)


def count_splits(batch: Interactions, config: PipelineConfig, cut: int | None) -> Tally:
    """Counts the rows of a batch by split, and the duplicates that were dropped."""
    eval_rows = int(is_eval(config, cut, batch).sum())
    return Tally(rows=Counter(train=len(batch.rows) - eval_rows, eval=eval_rows, duplicates=batch.duplicates))


def count_known(number: int, counts: FileCounts, config: PipelineConfig) -> Tally:
    """Counts the rows of an input file that was counted before: those of the window that were not rejected.

    "vocabulary" are the rows that the vocabularies count.
    """
    window, vocabulary = window_days(config), vocabulary_days(config)
    read = counts.rows_in(window)
    train = counts.rows_in(Days(window.since, vocabulary.until))
    rows = Counter(read=read, train=train, eval=read - train, vocabulary=counts.rows_in(vocabulary))
    return Tally(rows=rows, inside={number} if read else set())


def count_encoded(
    batch: EncodedRows, layout: Layout, vocabulary_sizes: Mapping[str, int], config: PipelineConfig
) -> Tally:
    """Counts labels and out-of-vocabulary tokens of a batch by split, and finds its first timestamp."""
    labels = batch.rows[LABEL].to_numpy()
    in_split = {"train": batch.shards < layout.train, "eval": batch.shards >= layout.train}
    tally = Tally()
    for split, mask in in_split.items():
        tally.rows[split] = int(mask.sum())
        tally.positive_rows[split] = int((labels[mask] >= np.float32(positive_at(config.label))).sum())
        tally.label_sums[split] = int(np.rint(labels[mask].astype(np.float64) * LABEL_UNITS).astype(np.int64).sum())
        if config.timestamp_column is not None and mask.any():
            tally.first_timestamp[split] = int(batch.rows[config.timestamp_column].to_numpy()[mask].min())
    for name, size in vocabulary_sizes.items():
        out = pc.greater_equal(batch.rows[name], size).to_numpy(zero_copy_only=False)
        tally.oov_rows.update({(name, split): int((out & mask).sum()) for split, mask in in_split.items()})
    return tally


def plan_layout(tally: Tally, config: PipelineConfig, source: Source, rejected_directory: str) -> Layout:
    """Returns how many shards to write, after a check of the counts.

    Args:
        tally: counts of the whole input.
        config: the bound on rejected rows, and the rows of a shard.
        source: names the input in messages.
        rejected_directory: where the rejected rows are, for messages.

    Raises:
        DotbiasError: there are no rows, too many are rejected, or none is left to train on.
    """
    read, rejected = tally.rows["read"], tally.rejected.total()
    if read == 0:
        raise DotbiasError(no_rows(source.files))
    if rejected > config.max_rejected_fraction * read:
        reason, count = next(iter(by_frequency(tally.rejected).items()))
        example = ""
        # Rows that were counted by an earlier run, and are many, may have none in the window that is kept.
        if reason in tally.examples:
            file, offset, text = tally.examples[reason]
            example = f", as in {source.names[file]} at byte {offset}: {text.decode('utf-8', 'backslashreplace')!r}"
        not_kept = tally.not_kept.total()
        kept = f"{rejected - not_kept:,} of them" if not_kept else "All"
        raise DotbiasError(
            f"{rejected:,} of {read:,} rows are rejected, more than `pipeline.max_rejected_fraction` "
            f"{config.max_rejected_fraction} allows. Most often ({count:,}): {reason}{example}. "
            f"{kept} are in {rejected_directory}. {advice(reason, config)}".rstrip()
        )
    if tally.rows["train"] == 0:
        raise DotbiasError(
            f"no row is left to train on: {read:,} read, {rejected:,} rejected, "
            f"{tally.rows['out_of_window']:,} out of the window, {tally.rows['eval']:,} in eval."
        )
    return Layout.of(tally.rows["train"], tally.rows["eval"], config.rows_per_shard)


def by_frequency(rejected: Counter[str]) -> dict[str, int]:
    """Sorts reasons by falling count, equal counts by name, so that the order of arrival does not matter."""
    return dict(sorted(rejected.items(), key=lambda item: (-item[1], item[0])))


def check_same_rows(first: Tally, second: Tally) -> None:
    """Raises `DotbiasError` unless both passes over the input saw the same rows."""
    for split in SPLITS:
        if first.rows[split] != second.rows[split]:
            raise DotbiasError(
                f"the input changed while it was read: {first.rows[split]:,} {split} rows in the first pass, "
                f"{second.rows[split]:,} in the second. Rerun when its files are complete."
            )
