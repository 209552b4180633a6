"""Reads shards as most TensorFlow code does (lines, batches of lines, `decode_csv`), and times `fit`."""

from __future__ import annotations

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import tensorflow as tf
from pace import Pace


def usual_reader(dataset: str, batch_size: int) -> tf.data.Dataset:
    def decode(lines: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        user, item, label = tf.io.decode_csv(lines, [0, 0, 0.0])
        return {"userId": user, "movieId": item}, label

    files = tf.data.Dataset.list_files(f"{dataset}/train/*.csv.gz", shuffle=True, seed=42)

    def read(path: tf.Tensor) -> tf.data.Dataset:
        # Batches of one file: if lines went through `interleave` one by one, it would take ten times as long.
        return tf.data.TextLineDataset(path, compression_type="GZIP").batch(batch_size, drop_remainder=True)

    batches = files.interleave(read, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.map(decode, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


class Timed(tf.keras.callbacks.Callback):
    """Records the time at every `every` steps of `fit`, from the `every`-th on."""

    def __init__(self, batch_size: int, every: int) -> None:
        super().__init__()
        self.pace = Pace()
        self._batch_size = batch_size
        self._every = every

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if (batch + 1) % self._every == 0:
            self.pace.at((batch + 1) * self._batch_size)
