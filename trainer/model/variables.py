"""Writes variables to a file and reads them again, a block of rows at a time.

`tf.train.Checkpoint` has a second copy of all variables in memory when it reads, and of the largest one when it writes.
The files here have its format, and a large variable is in them as TensorFlow keeps one that is divided among machines.
So its own tools can read them.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from trainer.model.blocks import Block, row_blocks

# Blocks that are written at once, into a file of their own.
_BYTES_AT_A_TIME = 64 << 20


class Variables:
    """Writes and reads variables as `tf.train.Checkpoint` does; to be used in the strategy's cross-replica context.

    Args:
        variables: by name, such as `tables/userId`; in the file they have the names that `tf.train.Checkpoint` gives to
            variables in dictionaries.
        strategy: with which they were made.
    """

    def __init__(self, variables: Mapping[str, tf.Variable], strategy: tf.distribute.Strategy) -> None:
        self._variables = {saved_name(name): variable for name, variable in variables.items()}
        self._strategy = strategy

    def write(self, path: str) -> None:
        """Write all variables, and make the directory; raise a `tf.errors.OpError` if the disk refuses."""
        aside = f"{path}_temp"
        tf.io.gfile.makedirs(aside)
        parts: list[str] = []
        names: list[str] = []
        slices: list[str] = []
        values: list[tf.Tensor] = []

        def write_part() -> None:
            parts.append(f"{aside}/part-{len(parts):05d}")
            tf.raw_ops.SaveV2(prefix=parts[-1], tensor_names=names, shape_and_slices=slices, tensors=values)
            for group in (names, slices, values):
                group.clear()

        for name, variable in self._variables.items():
            for block in row_blocks(variable):
                names.append(name)
                slices.append(_slice_of(block))
                values.append(block.read())
                if sum(value.shape.num_elements() * value.dtype.size for value in values) >= _BYTES_AT_A_TIME:
                    write_part()
        if names:
            write_part()
        tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=path, delete_old_dirs=True)

    def read(self, path: str) -> None:
        """Read all variables.

        Raises:
            tf.errors.OpError: one of them is missing or damaged, or the file has it with another shape.
        """
        for name, variable in self._variables.items():
            for block in row_blocks(variable):
                (value,) = tf.raw_ops.RestoreV2(
                    prefix=path, tensor_names=[name], shape_and_slices=[_slice_of(block)], dtypes=[variable.dtype]
                )
                if block.end is None:
                    # Only the variable knows how a sum over replicas is divided among them.
                    block.write(tf.ensure_shape(value, variable.shape))
                    continue
                for copy in self._strategy.experimental_local_results(variable):
                    Block(copy, block.first, block.end).write(value)


def saved_name(name: str) -> str:
    """Return the name that `tf.train.Checkpoint` gives in its file to a variable of nested dictionaries."""
    return f"{name}/.ATTRIBUTES/VARIABLE_VALUE"


def _slice_of(block: Block) -> str:
    """Describe a block as the file format does: the shape of the variable, then first and number along each axis."""
    if block.end is None:
        return ""
    shape = block.variable.shape
    rows = f"{block.first},{block.end - block.first}"
    return f"{' '.join(map(str, shape))} {':'.join([rows, *['-'] * (shape.rank - 1)])}"
