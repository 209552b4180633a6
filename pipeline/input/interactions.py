"""Defines `Interactions`, the batch of rows that travels through Beam from the input to the encoding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.input.parsing import Rejected

# Name of the column with the label in [0, 1]. A feature cannot have this name, but may be called "label".
LABEL = "_label"


@dataclass(frozen=True)
class Interactions:
    """Holds consecutive rows of a file: the tokens of each feature, the label, and the timestamp if there is one.

    `file` is the number of the file in the input. `offset` is where the batch begins in it, in (decompressed) bytes or
    in rows. Together they identify the batch. `rejected` holds the rows of the same block that are not in `rows`.
    `out_of_window` counts the rows that `pipeline.window` leaves out, `duplicates` those dropped for a later row.
    """

    file: int
    offset: int
    rows: pa.RecordBatch
    rejected: list[Rejected]
    out_of_window: int = 0
    duplicates: int = 0
    # Values that are computed from the rows, by name, so that each is computed once.
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def num_read(self) -> int:
        """Returns the number of rows of the block before any was left out."""
        return len(self.rows) + len(self.rejected) + self.out_of_window
