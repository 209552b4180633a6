"""Computes how many messages carry the rows to the shards, in one step or in two. No Beam here.

In one step, each batch sends a message to each shard. In two, it sends one to each group of shards; a worker of a group
takes messages together until they have the rows of a batch, and then sends one to each shard of the group. With groups
of about sqrt(shards) shards, batches x shards messages become about 2 x batches x sqrt(shards).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

# More messages than this go in two steps. For ratings and shards of a million rows, two steps then take less CPU time
# and more bytes; from ten times as many messages on, fewer bytes too.
MAX_MESSAGES = 10**8
# Rows of a batch: 8 MiB of a CSV file of ratings have about as many, and a block of a Parquet file 2**18.
ROWS_PER_BATCH = 300_000
# Bytes of the input for a row of ratings: as text or in a table; compressed, or in the columns of Parquet.
_ROW_BYTES, _COMPACT_ROW_BYTES = 28, 7
_COMPRESSED_NAMES = (".gz", ".bz2", ".zst")


def group_width(shards: int) -> int:
    """Returns how many shards are in a group (the last may have fewer): the root of their number, rounded up."""
    return math.isqrt(max(shards, 1) - 1) + 1


def num_messages(rows: int, shards: int, two_steps: bool) -> int:
    """Returns the most messages that rows in batches of `ROWS_PER_BATCH` take; no step has more than one a row."""
    batches = math.ceil(rows / ROWS_PER_BATCH)
    if not two_steps:
        return min(rows, batches * shards)
    width = group_width(shards)
    groups = math.ceil(shards / width)
    # A group sends once for each full batch of its rows, and once at its end.
    return min(rows, batches * groups) + min(rows, (batches + groups) * width)


def takes_two_steps(rows: int, shards: int) -> bool:
    """Returns whether one step would take more than `MAX_MESSAGES`."""
    return num_messages(rows, shards, two_steps=False) > MAX_MESSAGES


def rows_of_input(size: int, form: str, names: Iterable[str]) -> int:
    """Estimates the rows of an input of `size` bytes as if they were ratings; at most, if the rows are longer.

    Args:
        size: bytes of all files together.
        form: `pipeline.input.format`.
        names: of the files; those of compressed ones usually say so.
    """
    is_compact = form == "parquet" or any(name.endswith(_COMPRESSED_NAMES) for name in names)
    return math.ceil(size / (_COMPACT_ROW_BYTES if is_compact else _ROW_BYTES))
