"""Reads shards as `tf.data` batches.

A whole shard is decoded at a time, in plain TensorFlow operations. One call per shard, not per row or batch, makes the
reader fast. The shard is then permuted, and a batch is a slice of it (`Dataset.rebatch` joins the end of one shard with
the beginning of the next). The pipeline has shuffled all rows over the shards, and each epoch has a new order of
shards, so this is a full shuffle although only a few shards are in memory.

The order of the rows is a function of (seed, epoch) alone, so that training can go on at any row. No row is dropped:
the last batch of an epoch may be smaller. Each of several workers reads its own shards; a worker that has read them all
takes part in the remaining steps with empty batches. Replicas that exchange gradients, and a TPU, need batches of one
shape; they are filled up with rows of weight 0.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipeline.manifest import Feature, Shard
from trainer.data.dataset import Dataset, ShardPart
from trainer.data.lookup import hash_tokens

# Shards that are decoded at once.
_SHARDS_IN_FLIGHT = min(8, os.cpu_count() or 1)
# Text, lines and columns while a shard is decoded; a decoded value takes 4 bytes.
_BYTES_OF_ROW = 100
# Ends a file of the cache; a file without it is still being written.
_END = b"end of shard"
_BATCHES_AHEAD = 16

Rows = tuple[dict[str, tf.Tensor], tf.Tensor]
# Called with the features of a batch, the epoch, and a number that no other batch of the epoch has on any worker.
Append = Callable[[Mapping[str, tf.Tensor], tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]
# With weights where batches are filled up to one shape.
Batch = Rows | tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]


@dataclass(frozen=True)
class Shuffle:
    """Orders the rows anew in each epoch, from `first_epoch` (0-based) to `epochs` - 1.

    The first `skip_steps` batches of the first epoch are skipped: training had them before an interruption.
    """

    seed: int
    epochs: int
    first_epoch: int = 0
    skip_steps: int = 0


def shards_of_worker(shards: Sequence[Shard], num_workers: int, worker: int) -> list[int]:
    """Return the positions of the shards of a worker, ascending; workers have disjoint shards and near equal rows.

    Args:
        shards: all shards of a split.
        num_workers: at least 1.
        worker: in [0, num_workers).
    """
    rows = [0] * num_workers
    mine = []
    # The largest first, each to the worker with the fewest rows so far.
    for position in sorted(range(len(shards)), key=lambda p: (-shards[p].rows, p)):
        taker = rows.index(min(rows))
        rows[taker] += shards[position].rows
        if taker == worker:
            mine.append(position)
    return sorted(mine)


def num_steps(shards: Sequence[Shard], batch_size: int, num_workers: int = 1) -> int:
    """Return the steps of an epoch; in each, a worker takes `batch_size / num_workers` rows, or what it has left."""
    parts = [shards_of_worker(shards, num_workers, worker) for worker in range(num_workers)]
    return max(-(-sum(shards[p].rows for p in part) // (batch_size // num_workers)) for part in parts)


def memory_of_shards(data: Dataset) -> int:
    """Return the bytes that shards take while they are decoded: those of the next epoch and of the eval split at once.

    Each of several workers takes as much.
    """
    splits = [sorted((shard.rows for shard in data.split(name).shards), reverse=True) for name in ("train", "eval")]
    return _BYTES_OF_ROW * sum(sum(rows[:_SHARDS_IN_FLIGHT]) for rows in splits)


def shard_order(num_shards: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the order in which an epoch reads its shards, `[num_shards]`: a function of the arguments alone."""
    return np.random.default_rng([seed, epoch]).permutation(num_shards).astype(np.int64)


def permutation(rows: tf.Tensor, bits: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return a pseudo-random permutation of [0, rows), int32 `[rows]`: a function of the arguments alone.

    Invertible steps (exclusive or, product with an odd number, shift) permute [0, 2 ** bits); dropping what is not
    below `rows` leaves a permutation of [0, rows). It takes half the time of `tf.random.experimental.index_shuffle`
    and a third of that of sorting random numbers; `tf.random.shuffle` is as fast, but its order depends on the calls
    before, so that nothing could be resumed.

    Args:
        rows: int32 scalar.
        bits: int32 scalar with 2 ** (bits - 1) < rows <= 2 ** bits.
        seed: int64 `[2]`.
    """
    size = tf.bitwise.left_shift(1, bits)
    keys = tf.random.stateless_uniform([3, 2], seed, minval=0, maxval=2**30, dtype=tf.int32)
    index = tf.range(size)
    for key in tf.unstack(keys):
        index = tf.bitwise.bitwise_xor(index, key[0]) * (2 * key[1] + 1)
        index = tf.bitwise.bitwise_and(index, size - 1)
        index = tf.bitwise.bitwise_xor(index, tf.bitwise.right_shift(index, (bits + 1) // 2))
    return tf.boolean_mask(index, index < rows)


def read_batches(
    data: Dataset,
    split: str,
    batch_size: int,
    *,
    shuffle: Shuffle | None = None,
    context: tf.distribute.InputContext | None = None,
    static_shape: bool = False,
    append: Append | None = None,
    keep: bool = False,
) -> tf.data.Dataset:
    """Read a split in batches `({feature: int32 [batch]}, label float32 [batch])`, each row once an epoch.

    A shard that is unreadable, has another number of rows than the manifest says, an index out of range or a label
    outside [0, 1] ends the iteration with one of `integrity.READER_ERRORS`; `integrity.find_fault` then names file and
    row.

    Args:
        data: where the shards are and what they hold.
        split: `train` or `eval`.
        batch_size: rows of a batch, over all replicas.
        shuffle: the order of the epochs; None: one epoch in the order of the files.
        context: of a `tf.distribute` strategy: this worker reads its own shards only, in as many batches as the others.
        static_shape: fill up all batches to one size, and add weights float32 `[batch]`, 0 for what was filled in.
        append: appends further ids to the features of each batch.
        keep: keep all batches in memory, for the next iterator.
    """
    shards = data.split(split).shards
    context = context or tf.distribute.InputContext()
    workers, replicas = context.num_input_pipelines, context.num_replicas_in_sync
    mine = shards_of_worker(shards, workers, context.input_pipeline_id)
    # A step takes one batch for each replica of the worker.
    batches_of_step = replicas // workers
    num_batches = num_steps(shards, batch_size, workers) * batches_of_step
    skip_batches = shuffle.skip_steps * batches_of_step if shuffle else 0
    batch_size //= replicas
    paths = tf.constant([data.file(shard.path) for shard in shards], tf.string)
    rows = tf.constant([shard.rows for shard in shards], tf.int32)
    file_rows = tf.constant([s.file_rows if isinstance(s, ShardPart) else s.rows for s in shards], tf.int32)
    first = tf.constant([s.first if isinstance(s, ShardPart) else 0 for s in shards], tf.int32)
    caches = tf.constant([data.cache_file(shard.path) if data.cache else "" for shard in shards], tf.string)
    bits = tf.constant([max(shard.rows - 1, 0).bit_length() for shard in shards], tf.int32)

    def read_shard(position: tf.Tensor, epoch: tf.Tensor, skip: tf.Tensor) -> Rows:
        read = (paths[position], file_rows[position], data)
        features, label = cached_shard(caches[position], *read) if data.cache else decode_shard(*read)
        part = slice(first[position], first[position] + rows[position])
        features, label = {name: ids[part] for name, ids in features.items()}, label[part]
        if shuffle is None:
            return features, label
        seed = tf.stack([tf.constant(shuffle.seed, tf.int64), epoch * len(shards) + position])
        order = permutation(rows[position], bits[position], seed)[skip:]
        return {name: tf.gather(ids, order) for name, ids in features.items()}, tf.gather(label, order)

    # Nothing in it is for AutoGraph, which takes longer to rewrite all this than tracing takes.
    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def read_epoch(positions: tf.Tensor, epoch: tf.Tensor, skip: tf.Tensor, empty: tf.Tensor) -> tf.data.Dataset:
        elements = tf.data.Dataset.from_tensor_slices((positions, tf.fill(tf.shape(positions), epoch), skip))
        decoded = elements.map(read_shard, num_parallel_calls=_SHARDS_IN_FLIGHT, deterministic=True)
        # Rebatching inside an epoch keeps rows of two epochs out of one batch.
        batches = decoded.rebatch(batch_size)
        if replicas > 1:
            batches = batches.concatenate(tf.data.Dataset.from_tensors(_empty_batch(data)).repeat(empty))
        if static_shape:
            batches = batches.map(lambda features, label: _pad(features, label, batch_size))
        if append is None:
            return batches
        skipped = tf.where(epoch == first_epoch, tf.constant(skip_batches, tf.int64), 0)
        return batches.enumerate(skipped).map(functools.partial(appended, append, epoch))

    def appended(append: Append, epoch: tf.Tensor, number: tf.Tensor, batch: Batch) -> Batch:
        features, *rest = batch
        return append(features, epoch, number * workers + context.input_pipeline_id), *rest

    first_epoch = shuffle.first_epoch if shuffle else 0
    order, skip, empty = _schedule([shards[p].rows for p in mine], shuffle, batch_size, num_batches, skip_batches)
    numbers = tf.range(shuffle.first_epoch, shuffle.epochs, dtype=tf.int64) if shuffle else tf.zeros(1, tf.int64)
    lengths = [len(epoch) for epoch in order]
    positions = tf.RaggedTensor.from_row_lengths(
        tf.constant([mine[p] for epoch in order for p in epoch], tf.int64), tf.constant(lengths, tf.int64)
    )
    skips = positions.with_values(tf.constant([s for epoch in skip for s in epoch], tf.int32))
    plan = (positions, numbers, skips, tf.constant(empty, tf.int64))
    if shuffle is None:
        # One epoch needs no function around it, which takes longer to trace and to set up than few rows to read. Keras
        # asks for the number of batches.
        batches = read_epoch(*(part[0] for part in plan))
        batches = batches.apply(tf.data.experimental.assert_cardinality(num_batches))
    else:
        batches = tf.data.Dataset.from_tensor_slices(plan).flat_map(read_epoch)
    if keep:
        batches = batches.cache()
    options = tf.data.Options()
    # The sharding is done above, by rows.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    # All numbers are given, so there is nothing to tune. Besides, an iterator cannot end before the thread that would
    # tune it wakes up, which sleeps the longer the longer it has run, up to a minute.
    options.autotune.enabled = False
    return batches.prefetch(_BATCHES_AHEAD).with_options(options)


def _schedule(
    rows: Sequence[int], shuffle: Shuffle | None, batch_size: int, num_batches: int, skip_batches: int
) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Plan the epochs: the shards of each in order, the rows to skip in each shard, and the empty batches at the end.

    Args:
        rows: of each of the worker's shards.
        shuffle: None: one epoch in the order given.
        batch_size: of one replica.
        num_batches: of an epoch.
        skip_batches: of the first epoch.
    """
    if shuffle is None:
        return [list(range(len(rows)))], [[0] * len(rows)], [num_batches - -(-sum(rows) // batch_size)]
    orders, skips, empty = [], [], []
    for epoch in range(shuffle.first_epoch, shuffle.epochs):
        order = shard_order(len(rows), shuffle.seed, epoch).tolist()
        skip = [0] * len(order)
        skipped = skip_batches if epoch == shuffle.first_epoch else 0
        left = skipped * batch_size
        while order and left >= rows[order[0]]:
            left -= rows[order[0]]
            del order[0], skip[0]
        if order:
            skip[0] = left
        filled = -(-(sum(rows[p] for p in order) - sum(skip)) // batch_size)
        orders.append(order)
        skips.append(skip)
        empty.append(num_batches - skipped - filled)
    return orders, skips, empty


def _pad(features: dict[str, tf.Tensor], label: tf.Tensor, batch_size: int) -> Batch:
    """Add rows of index 0, label 0 and weight 0, so that all tensors have the shape `[batch_size]`."""

    def pad(values: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.pad(values, [[0, batch_size - tf.size(label)]]), [batch_size])

    return {name: pad(ids) for name, ids in features.items()}, pad(label), pad(tf.ones_like(label))


def decode_shard(path: tf.Tensor, rows: tf.Tensor, data: Dataset) -> Rows:
    """Read one shard: `({feature: int32 [rows]}, label float32 [rows])`; tokens of hashed features become bins."""
    text = tf.io.decode_compressed(tf.io.read_file(path), compression_type="GZIP")
    # Split as a list of one text, since splitting a scalar copies all lines once more. The text after the last "\n" is
    # empty and dropped.
    lines = tf.strings.split([text], "\n").values[:-1]
    _check(tf.size(lines) == rows, path)
    selected = [i for i, column in enumerate(data.manifest.columns) if column.role != "timestamp"]
    columns = [data.manifest.columns[i] for i in selected]
    types = [tf.float32 if c.role == "label" else _id_dtype(data.manifest.features[c.name]) for c in columns]
    # An empty default says that the field may not be empty.
    values = tf.io.decode_csv(lines, [tf.constant([], dtype) for dtype in types], select_cols=selected)
    features = {}
    for column, value in zip(columns, values, strict=True):
        # `decode_csv` loses the length, `rows` of every column.
        if column.role == "label":
            label = value
            _check(tf.reduce_all((label >= 0) & (label <= 1)), path)
        elif column.name in data.num_bins:
            features[column.name] = hash_tokens(value, data.num_bins[column.name])
        else:
            _check(tf.reduce_all((value >= 0) & (value < data.table_rows[column.name])), path)
            features[column.name] = value
    return features, label


def cached_shard(cache: tf.Tensor, path: tf.Tensor, rows: tf.Tensor, data: Dataset) -> Rows:
    """Read a shard from the file `cache`; if that is empty or not yet whole, decode the shard and write the file.

    The last shard of an epoch can be the first of the next, which is then read while the file is being written.
    """
    names = sorted(data.sides)

    def decode() -> tf.Tensor:
        features, label = decode_shard(path, rows, data)
        columns = tf.stack([*(features[name] for name in names), tf.bitcast(label, tf.int32)])
        text = tf.strings.join([tf.io.serialize_tensor(columns), _END])
        with tf.control_dependencies([tf.io.write_file(cache, text)]):
            return tf.identity(columns)

    text = tf.io.read_file(cache)
    size = tf.strings.length(text) - len(_END)
    whole = tf.cond(size > 0, lambda: tf.equal(tf.strings.substr(text, size, len(_END)), _END), lambda: False)
    columns = tf.cond(whole, lambda: tf.io.parse_tensor(tf.strings.substr(text, 0, size), tf.int32), decode)
    *ids, label = tf.unstack(tf.ensure_shape(columns, [len(names) + 1, None]))
    return dict(zip(names, ids, strict=True)), tf.bitcast(label, tf.float32)


def _id_dtype(feature: Feature) -> tf.DType:
    if feature.encoding == "vocabulary":
        return tf.int32
    return tf.int64 if feature.token_dtype == "int64" else tf.string


def _check(condition: tf.Tensor, path: tf.Tensor) -> None:
    tf.debugging.Assert(condition, ["not what the manifest says:", path])


def _empty_batch(data: Dataset) -> Rows:
    return {name: tf.zeros([0], tf.int32) for name in data.sides}, tf.zeros([0])
