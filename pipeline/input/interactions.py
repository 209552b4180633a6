"""`Interactions`: the batches in which rows travel from the input to the encoding."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from pipeline.input.parsing import Rejected

# Column of the label in [0, 1], here and in the shards.
LABEL = "label"


@dataclass(frozen=True)
class Interactions:
    """Rows that follow each other in a file: the features' tokens, `label`, and the timestamp column if there is one.

    `file` is the file's number in the input and `offset` where the batch begins in it (in bytes, decompressed, or in
    rows); together they name the batch. `rejected` are the rows of the same file_range that are not in `rows`, and
    `out_of_window` counts those that `pipeline.window` leaves out.
    """

    file: int
    offset: int
    rows: pa.RecordBatch
    rejected: list[Rejected]
    out_of_window: int = 0
    duplicates: int = 0

    @property
    def num_read(self) -> int:
        return len(self.rows) + len(self.rejected) + self.out_of_window
