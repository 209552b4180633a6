"""Goes through large variables a block of rows at a time, so that no second copy of a table is ever in memory.

A table that has been updated row by row is copied whole whenever its value is read, even for a slice of it. Gathering
rows copies these rows alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import tensorflow as tf

# A block that is computed exists a few times for a moment; blocks of this size cost no time beside whole tables.
_BLOCK_BYTES = 32 << 20


@dataclass(frozen=True)
class Block:
    """Reads and writes the rows [first, end) of a variable; all of it if `end` is None.

    A part of a distributed variable can be read, but is written into its copies, one by one.
    """

    variable: tf.Variable
    first: int = 0
    end: int | None = None

    def read(self) -> tf.Tensor:
        """Return the values, `[rows, ...]`."""
        if self.end is None:
            return self.variable.read_value()
        return tf.gather(self.variable, tf.range(self.first, self.end))

    def write(self, values: tf.Tensor) -> None:
        """Replace the values by others of the same shape."""
        if self.end is None:
            self.variable.assign(values)
        else:
            self.variable.scatter_update(tf.IndexedSlices(values, tf.range(self.first, self.end)))


def row_blocks(variable: tf.Variable) -> Iterator[Block]:
    """Yield blocks of at most 32 MiB, in order, that cover a variable."""
    rows, *width = variable.shape if variable.shape.rank else [1]
    step = max(_BLOCK_BYTES // (math.prod(width) * variable.dtype.size), 1)
    if rows <= step:
        yield Block(variable)
        return
    for first in range(0, rows, step):
        yield Block(variable, first, min(first + step, rows))
