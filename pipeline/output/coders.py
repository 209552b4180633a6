"""How batches of rows are encoded where a runner has to: by pickling, with a size that costs nothing to tell.

Beam asks for the size of a share of all elements, for its counters. Of a type that it does not know it finds out by
encoding, which for batches of several megabytes, at each step, takes a tenth of a job's time.
"""

from __future__ import annotations

import pickle
from typing import Any

import apache_beam as beam
import pyarrow as pa

from pipeline.input.interactions import Interactions
from pipeline.output.shards import EncodedRows


class BatchCoder(beam.coders.Coder):
    """Of `pyarrow.RecordBatch`, and of what has one as `rows`."""

    def encode(self, value: Any) -> bytes:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def decode(self, encoded: bytes) -> Any:
        return pickle.loads(encoded)

    def estimate_size(self, value: Any) -> int:
        rows = value if isinstance(value, pa.RecordBatch) else value.rows
        return int(rows.nbytes)

    def is_deterministic(self) -> bool:
        # Equal rows can have different buffers.
        return False


def register_coders() -> None:
    """For graphs that are built from now on in this process."""
    for batch_type in (Interactions, EncodedRows, pa.RecordBatch):
        beam.coders.registry.register_coder(batch_type, BatchCoder)
