"""Encodes batches of rows by pickling, and gives Beam their size without encoding them.

Beam asks for the size of some elements, for its counters. It measures unknown types by encoding them; for batches of
several megabytes, at each step, that takes a tenth of a job's time.
"""

from __future__ import annotations

import pickle
from typing import Any

import apache_beam as beam
import pyarrow as pa

from pipeline.input.interactions import Interactions
from pipeline.output.shards import EncodedRows


class BatchCoder(beam.coders.Coder):
    """Encodes a `pyarrow.RecordBatch`, or an object that has one as `rows`."""

    def encode(self, value: Any) -> bytes:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def decode(self, encoded: bytes) -> Any:
        return pickle.loads(encoded)

    def estimate_size(self, value: Any) -> int:
        rows = value if isinstance(value, pa.RecordBatch) else value.rows
        return int(rows.nbytes)

    def is_deterministic(self) -> bool:
        # Equal rows can lie in different buffers.
        return False


def register_coders() -> None:
    """Registers the coder for the graphs that this process builds from now on."""
    for batch_type in (Interactions, EncodedRows, pa.RecordBatch):
        beam.coders.registry.register_coder(batch_type, BatchCoder)
