"""Configures one embedding table per feature: size, initial values, and the strength of L2 of each row."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipeline.manifest import DotbiasError
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.reader import read_batches

Counts = npt.NDArray[np.float32]

_ROWS_AT_A_TIME = 1 << 16
# Of the initial values of a table.
_BYTES_AT_A_TIME = 32 << 20


class BiasLastInitializer:
    """Draws vectors from a normal distribution cut off at two standard deviations; the last unit, the bias, is 0.

    Columns beyond `dim`, which a SparseCore adds up to a multiple of 8, are 0 too.
    """

    def __init__(self, dim: int, stddev: float, seed: tuple[int, int]) -> None:
        self.dim = dim
        # The standard deviation before the cut, which lowers it by an eighth.
        self.stddev = stddev
        self.seed = seed

    def __call__(
        self, shape: Sequence[int], dtype: tf.DType = tf.float32, shard_info: Any = None, **_: Any
    ) -> tf.Tensor:
        """Draw a table, or with `shard_info` the part of it that one of several TPU hosts or cores has."""
        first_row = 0
        if shard_info is not None:
            shape, first_row = shard_info.shape, shard_info.offset[0]
        rows, width = map(int, shape)
        step = max(_BYTES_AT_A_TIME // (width * dtype.size), 1)
        if rows <= step or not tf.executing_eagerly():
            return self._draw(first_row, rows, width, dtype)
        # Drawn at once, a table would be in memory four times.
        table = np.empty([rows, width], dtype.as_numpy_dtype)
        for first in range(0, rows, step):
            number = min(step, rows - first)
            table[first : first + number] = self._draw(first_row + first, number, width, dtype).numpy()
        return tf.convert_to_tensor(table)

    def _draw(self, first_row: int, rows: int, width: int, dtype: tf.DType) -> tf.Tensor:
        """Draw some rows; those of other parts of the table would be the same with the same seed."""
        seed: Any = self.seed
        if first_row:
            seed = tf.random.experimental.stateless_fold_in(seed, first_row)
        vectors = tf.random.stateless_truncated_normal([rows, self.dim - 1], seed, stddev=self.stddev, dtype=dtype)
        return tf.concat([vectors, tf.zeros([rows, width - self.dim + 1], dtype)], axis=1)


def feature_configs(
    rows: Mapping[str, int], config: TrainerConfig, ids: Mapping[str, int] | None = None
) -> dict[str, tf.tpu.experimental.embedding.FeatureConfig]:
    """Make a table for each feature, of `rows[feature]` rows and `embedding_dim` columns.

    `ids` says how many ids a replica looks up at a time, for a TPU; None elsewhere, where any number will do.
    """
    embedding = tf.tpu.experimental.embedding
    return {
        name: embedding.FeatureConfig(
            table=embedding.TableConfig(
                vocabulary_size=num_rows,
                dim=config.embedding_dim,
                # With one seed for all, a user and an item of the same index would start as the same vector.
                initializer=BiasLastInitializer(
                    config.embedding_dim, config.initial_stddev, (config.seed, zlib.crc32(name.encode()))
                ),
                name=name,
            ),
            output_shape=None if ids is None else [ids[name]],
            name=name,
        )
        for name, num_rows in rows.items()
    }


def index_counts(data: Dataset) -> dict[str, Counts]:
    """Return how often each index occurs in the train split, by feature: float32 `[table rows]`.

    The pipeline has counted the tokens of a vocabulary; hashed tokens are counted in a pass over the train shards.
    """
    counts = {name: vocabulary_counts(data, name) for name in data.sides if name not in data.num_bins}
    if data.num_bins:
        counts |= _count_bins(read_batches(data, "train", _ROWS_AT_A_TIME), data.num_bins)
    return counts


def vocabulary_counts(data: Dataset, name: str) -> Counts:
    """Read how often the train split has each index of a vocabulary, float32 `[table rows]`.

    The rows of out-of-vocabulary tokens are spread evenly over the OOV buckets.
    """
    feature = data.manifest.features[name]
    assert feature.counts_path is not None and feature.vocabulary_size is not None and feature.num_oov_buckets
    path = data.file(feature.counts_path)
    with tf.io.gfile.GFile(path, "rb") as file:
        counts = np.fromstring(file.read().decode(), dtype=np.float32, sep="\n")
    if len(counts) != feature.vocabulary_size:
        raise DotbiasError(
            f"{path} has {len(counts):,} counts, but the vocabulary of {name!r} has {feature.vocabulary_size:,} "
            "tokens. Preprocess again into an empty directory."
        )
    oov_rows = (feature.oov_rows or {}).get("train", 0)
    return np.append(counts, np.full(feature.num_oov_buckets, oov_rows / feature.num_oov_buckets, np.float32))


def _count_bins(batches: tf.data.Dataset, num_bins: Mapping[str, int]) -> dict[str, Counts]:
    counts = {name: np.zeros(bins, np.int64) for name, bins in num_bins.items()}
    for features, _ in batches:
        for name, total in counts.items():
            total += np.bincount(features[name].numpy(), minlength=len(total))
    return {name: total.astype(np.float32) for name, total in counts.items()}


def l2_weights(counts: Counts) -> Counts:
    """Return count ** -0.5 + 1 / count for each index, `[table rows]`; an index that never occurred counts once.

    A row is looked up `count` times an epoch. Summed over an epoch, the second part is the constant penalty of a
    Gaussian prior, which limits ids of few rows. The sum of the first part grows with count ** 0.5 and limits the
    rest; plain L2 on looked-up rows would grow with count.
    """
    counts = np.maximum(counts, 1)
    return counts ** np.float32(-0.5) + 1 / counts
