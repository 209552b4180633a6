"""Keeps the counts of each input file by day, so that the vocabulary of a window needs no second reading of old files.

```
<counts_cache>/<key>/entry.json          rows by day; written last, so a directory that has it is complete
                     <feature>.parquet   day, token, count, sorted; only rows that were not rejected
                     <feature>+<feature>.parquet   the same of the combinations of a side's tokens
                     rejected.parquet    the rejected rows that are kept, with their days; only if there are any
```

The key is a hash of the file's path, size and time of modification, and of all options that decide which rows count and
as which tokens. So a file that changed is counted again, and two commands at the same time write the same bytes. Days
are numbered from 1970-01-01, in UTC. No Beam here.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline import __version__
from pipeline.config import Moment, PipelineConfig, day_length, timestamp_of
from pipeline.input.interactions import RejectedRow, RejectedRows
from pipeline.input.parquet_files import open_parquet
from pipeline.manifest import DotbiasError, InputFile, fingerprint, join
from pipeline.storage.files import read_file, write_file
from pipeline.storage.matching import identity
from pipeline.storage.trees import delete_files, file_sizes, file_times

_LOGGER = logging.getLogger(__name__)

ENTRY_NAME = "entry.json"
_REJECTED_NAME = "rejected.parquet"
# Entries of files that left the input stay this long, for another run that may read them now.
KEEP_SECONDS = 7 * 86_400
# Entries are small, and a store takes long to answer.
_READERS = 16
_ROWS_PER_GROUP = 1 << 17


class Days(NamedTuple):
    """Holds the days in [since, until); None is no bound."""

    since: int | None
    until: int | None

    def have(self, day: int) -> bool:
        """Returns whether a day is one of these."""
        return (self.since is None or day >= self.since) and (self.until is None or day < self.until)


def window_days(config: PipelineConfig) -> Days:
    """Returns the days of `window`."""
    return Days(_day(config.window.since, config), _day(config.window.until, config))


def vocabulary_days(config: PipelineConfig) -> Days:
    """Returns the days whose rows the vocabularies count: the train rows, or those since `vocabulary_since`."""
    first = config.window.since if config.vocabulary_since is None else config.vocabulary_since
    ends = [_day(moment, config) for moment in (config.split.since, config.window.until)]
    return Days(_day(first, config), min((end for end in ends if end is not None), default=None))


def _day(moment: Moment | None, config: PipelineConfig) -> int | None:
    unit = config.timestamp_unit
    return None if moment is None else timestamp_of(moment, unit) // day_length(unit)


class FileCounts(BaseModel):
    """Describes an input file that was counted: `entry.json`.

    `rows` counts rows by day, `rejected` by reason and day; `undated` counts, by reason, the rejected rows whose
    timestamp is not known. Of a reason with very many rows, those before an end (hash, offset) are kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[2] = 2
    path: str
    rows: dict[int, int]
    rejected: dict[str, dict[int, int]]
    undated: dict[str, int]
    ends: dict[str, tuple[int, int]] = {}

    def is_outside(self, days: Days) -> bool:
        """Returns whether all rows with a known day are on other days, so that the file need not be read."""
        dated = set(self.rows).union(*self.rejected.values())
        return bool(dated) and not any(map(days.have, dated))

    def rows_in(self, days: Days) -> int:
        """Counts the rows of these days that were not rejected."""
        return sum(rows for day, rows in self.rows.items() if days.have(day))

    def rejected_in(self, days: Days) -> dict[str, int]:
        """Counts the rejected rows of these days, and of no known day, by reason."""
        counts = Counter(self.undated)
        for reason, by_day in self.rejected.items():
            counts[reason] += sum(rows for day, rows in by_day.items() if days.have(day))
        return {reason: count for reason, count in sorted(counts.items()) if count}

    @property
    def total(self) -> int:
        """Counts all rows."""
        return sum(self.rows.values()) + sum(self.rejected_in(Days(None, None)).values())


@dataclass(frozen=True)
class CountsCache:
    """Names the entry of each input file, by number, and holds those that are there."""

    directory: str
    keys: Sequence[str]
    known: dict[int, FileCounts]

    def path(self, number: int, name: str) -> str:
        """Returns the path of a file of an entry."""
        return join(self.directory, self.keys[number], name)

    def uncounted(self) -> list[int]:
        """Lists the files that have no entry."""
        return [number for number in range(len(self.keys)) if number not in self.known]

    def needed(self, days: Days) -> list[int]:
        """Lists the files that may have rows of these days."""
        known = self.known
        return [n for n in range(len(self.keys)) if n not in known or known[n].rows_in(days)]

    def write_entry(self, number: int, counts: FileCounts, rejected: Mapping[str, RejectedRows]) -> None:
        """Writes the rejected rows and `entry.json`, which completes the entry; call `write_tokens` before."""
        rows = [(reason, row) for reason, of_reason in sorted(rejected.items()) for row in sorted(of_reason.rows)]
        if rows:
            table = pa.table(
                {
                    "reason": pa.array([reason for reason, _ in rows], pa.string()),
                    "hash": pa.array([row.hash for _, row in rows], pa.int64()),
                    "block": pa.array([row.block for _, row in rows], pa.int64()),
                    "offset": pa.array([row.offset for _, row in rows], pa.int64()),
                    "text": pa.array([row.text for _, row in rows], pa.large_binary()),
                    "day": pa.array([row.day for _, row in rows], pa.int32()),
                }
            )
            self._write(number, _REJECTED_NAME, _parquet(table))
        self._write(number, ENTRY_NAME, counts.model_dump_json().encode())

    def read_rejected(self, number: int) -> dict[str, list[RejectedRow]]:
        """Reads the rejected rows of a file that are kept, by reason."""
        found: dict[str, list[RejectedRow]] = {}
        for row in _read(self.path(number, _REJECTED_NAME), Days(None, None)).to_pylist():
            reason = row.pop("reason")
            found.setdefault(reason, []).append(RejectedRow(file=number, **row))
        return found

    def write_tokens(self, number: int, feature: str, counts: pa.Table) -> None:
        """Writes (day, token, count) of a file; days and tokens may repeat."""
        added = counts.group_by(["day", "token"], use_threads=False).aggregate([("count", "sum")])
        table = added.rename_columns({"count_sum": "count"}).sort_by([("day", "ascending"), ("token", "ascending")])
        self._write(number, f"{feature}.parquet", _parquet(table.select(["day", "token", "count"])))

    def read_tokens(self, number: int, feature: str, days: Days) -> pa.Table:
        """Reads (token, count) of these days, each token once, in no defined order."""
        table = _read(self.path(number, f"{feature}.parquet"), days)
        mask = pc.is_valid(table["day"])
        if days.since is not None:
            mask = pc.and_(mask, pc.greater_equal(table["day"], days.since))
        if days.until is not None:
            mask = pc.and_(mask, pc.less(table["day"], days.until))
        added = table.filter(mask).group_by("token", use_threads=False).aggregate([("count", "sum")])
        return added.rename_columns({"count_sum": "count"}).select(["token", "count"])

    def _write(self, number: int, name: str, data: bytes) -> None:
        write_file(self.path(number, name), data, temporary=join(self.directory, "tmp"))

    def delete_stale(self) -> None:
        """Deletes the entries of files that are no longer in the input, if they are older than `KEEP_SECONDS`.

        A failure is a warning.
        """
        own, before = set(self.keys), time.time() - KEEP_SECONDS
        try:
            times = file_times(self.directory)
            stale = [name for name, modified in times.items() if name.split("/")[0] not in own and modified < before]
            # `entry.json` goes first, so that an interrupted deletion leaves no entry that looks complete.
            for is_entry in (True, False):
                delete_files([name for name in stale if name.endswith(f"/{ENTRY_NAME}") == is_entry], self.directory)
        except DotbiasError as error:
            _LOGGER.warning("the dataset is complete, but old counts remain: %s", error)


def counts_cache(config: PipelineConfig, files: Sequence[InputFile]) -> CountsCache | None:
    """Finds the entries of the input's files; None if the configuration names no cache or cannot use one.

    An entry that this version cannot read counts as missing.
    """
    if config.counts_cache is None:
        return None
    if reason := config.why_not_counted_by_file():
        _LOGGER.warning("`pipeline.counts_cache` is not used, so all files are counted: %s", reason)
        return None
    directory = config.counts_cache
    keys = [entry_key(file, config) for file in files]
    there = file_sizes(directory)
    numbers = [number for number, key in enumerate(keys) if f"{key}/{ENTRY_NAME}" in there]
    with ThreadPoolExecutor(_READERS) as pool:
        entries = pool.map(lambda number: _read_entry(join(directory, keys[number], ENTRY_NAME)), numbers)
        known = {number: entry for number, entry in zip(numbers, entries, strict=True) if entry is not None}
    return CountsCache(directory, keys, known)


def entry_key(file: InputFile, config: PipelineConfig) -> str:
    """Returns the name of a file's entry."""
    given = config.model_dump(mode="json")
    return fingerprint(
        {
            "format_version": FileCounts.model_fields["format_version"].default,
            # Another version may parse rows differently.
            "dotbias": __version__,
            "file": {**file.model_dump(), "path": identity(file.path)},
            "input": {key: value for key, value in given["input"].items() if key != "patterns"},
            # A list, since the order of columns matters in files without a header.
            "columns": list(config.columns.items()),
            "label": given["label"],
            "features": [
                (name, feature.encoding, config.missing_is_a_token(name)) for name, feature in config.features.items()
            ],
            "combinations": config.combined_features,
            "timestamp": (config.timestamp_column, config.timestamp_unit),
        }
    )


def _read_entry(path: str) -> FileCounts | None:
    try:
        return FileCounts.model_validate_json(read_file(path))
    except ValidationError:
        return None


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="zstd", row_group_size=_ROWS_PER_GROUP)
    return bytes(sink.getvalue())


def _read(path: str, days: Days) -> pa.Table:
    """Reads the row groups that may have rows of these days."""
    with open_parquet(path) as file:
        groups = []
        for index in range(file.metadata.num_row_groups):
            column = file.metadata.row_group(index).column(0)
            bounds = column.statistics if column.path_in_schema == "day" else None
            if bounds is None or not bounds.has_min_max or not _apart(bounds.min, bounds.max, days):
                groups.append(index)
        return file.read_row_groups(groups)


def _apart(first: int, last: int, days: Days) -> bool:
    """Returns whether [first, last] has none of these days."""
    return (days.since is not None and last < days.since) or (days.until is not None and first >= days.until)
