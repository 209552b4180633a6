"""Goes through large variables a block of rows at a time, so that no second copy of a table is ever in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

# A block that is computed exists a few times for a moment; blocks of this size cost no time beside whole tables.
_BLOCK_BYTES = 32 << 20


def row_blocks(variable: tf.Variable) -> Iterator[Any]:
    """Yield slices of the rows of a variable, of at most 32 MiB each; `...` for a scalar."""
    if not variable.shape.rank:
        yield ...
        return
    rows, *width = variable.shape
    step = max(_BLOCK_BYTES // (math.prod(width) * variable.dtype.size), 1)
    for first in range(0, rows, step):
        yield slice(first, min(first + step, rows))
