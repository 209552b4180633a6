"""Defines `Interactions`, the batch of rows that travels through Beam from the input to the encoding."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa

from pipeline.input.parsing import Rejected

# Name of the column with the label in [0, 1]. A feature cannot have this name, but may be called "label".
LABEL = "_label"

# How many rejected rows of a reason are kept, and how long their texts are together, at most. So that one worker can
# hold them, also if the whole log has another format: about 50 MB.
MAX_KEPT_ROWS = 100_000
MAX_KEPT_BYTES = 32 << 20


class RejectedRow(NamedTuple):
    """Holds a rejected row; `block` is the offset of the block that it was read in.

    `hash` follows from `offset` and `text`. Sorted by it, rows are in a random order that is the same in every run.
    `day` is set where rows are counted by file, if it is known.
    """

    hash: int
    file: int
    offset: int
    block: int
    text: bytes
    day: int | None = None


# (hash, file, offset) of a row.
Place: TypeAlias = tuple[int, int, int]


@dataclass
class RejectedRows:
    """Holds the rejected rows of one reason: all of them, or a sample if they are many.

    `count` is the number of all rows. `rows` are those before `end` in the order of their hashes; None: all.
    """

    count: int = 0
    rows: list[RejectedRow] = field(default_factory=list)
    end: Place | None = None
    text_bytes: int = 0

    def add(self, other: RejectedRows) -> None:
        """Adds further rows of the same reason."""
        self.count += other.count
        self.rows += other.rows
        self.text_bytes += other.text_bytes
        if other.end is not None:
            self.end = other.end if self.end is None else min(self.end, other.end)
        # Not at each call: sorting would take the square of the number of calls.
        if len(self.rows) > 2 * MAX_KEPT_ROWS or self.text_bytes > 2 * MAX_KEPT_BYTES:
            self.bound()

    def bound(self) -> None:
        """Drops rows if there are too many. What is kept does not depend on how the rows were put together."""
        rows = sorted(row for row in self.rows if self.end is None or row < self.end)
        self.text_bytes = 0
        for number, row in enumerate(rows):
            if number == MAX_KEPT_ROWS or self.text_bytes + len(row.text) > MAX_KEPT_BYTES:
                self.end = row[:3]
                rows = rows[:number]
                break
            self.text_bytes += len(row.text)
        self.rows = rows

    @property
    def not_kept(self) -> int:
        """Returns how many rows were counted and dropped."""
        return self.count - len(self.rows)


def by_reason(
    file: int, block: int, rejected: Iterable[Rejected], days: Mapping[int, int] | None = None
) -> dict[str, RejectedRows]:
    """Returns the rejected rows of a block of a file by their reasons; `days` has known days by offset of the row."""
    days = days or {}
    found: dict[str, list[RejectedRow]] = {}
    for offset, reason, text in rejected:
        # Seven bytes, which fit an int64.
        digest = hashlib.blake2b(text, digest_size=7, salt=offset.to_bytes(16, "little")).digest()
        row = RejectedRow(int.from_bytes(digest, "little"), file, offset, block, text, days.get(offset))
        found.setdefault(reason, []).append(row)
    return {reason: some_rows(rows, len(rows)) for reason, rows in found.items()}


def some_rows(rows: list[RejectedRow], count: int, end: Place | None = None) -> RejectedRows:
    """Returns rejected rows of one reason, of which there are `count`, within the bounds."""
    made = RejectedRows(count, rows, end, sum(len(row.text) for row in rows))
    made.bound()
    return made


@dataclass(frozen=True)
class Interactions:
    """Holds consecutive rows of a file: the tokens of each feature, the label, and the timestamp if there is one.

    `file` is the number of the file in the input. `offset` is where the batch begins in it, in (decompressed) bytes or
    in rows. Together they identify the batch. `rejected` holds the rows of the same block that are not in `rows`, by
    reason. `out_of_window` counts the rows that `pipeline.window` leaves out, `duplicates` those dropped for a later
    row.
    """

    file: int
    offset: int
    rows: pa.RecordBatch
    rejected: Mapping[str, RejectedRows]
    out_of_window: int = 0
    duplicates: int = 0
    # Values that are computed from the rows, so that each is computed once.
    memo: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def num_read(self) -> int:
        """Returns the number of rows of the block before any was left out."""
        return len(self.rows) + sum(rows.count for rows in self.rejected.values()) + self.out_of_window
