"""Draws the items that the objective `softmax` compares the item of a row with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset, side_features
from trainer.data.sides import side_rows

# Added to the seed, since the seed itself gives the random numbers that permute a shard.
_SALT = 0x50F7


@dataclass(frozen=True)
class Candidates:
    """Draws items for each batch, uniformly and with replacement; an OOV bucket is drawn as one item.

    They are drawn where batches are read, not in the step, since a TPU looks up only ids that its host sends it.

    Attributes:
        feature: the first feature of the item side; each row of its table is an item.
        num_items: rows of that table.
        others: by further feature of the item side, the row of its table for each item, `[num_items]`.
        number: items that are drawn for a batch of one replica.
        seed: with epoch, batch and worker it decides what is drawn, so that training can go on at any batch.
    """

    feature: str
    num_items: int
    others: Mapping[str, npt.NDArray[np.int64]]
    number: int
    seed: int

    @classmethod
    def of(cls, data: Dataset, config: TrainerConfig) -> Candidates:
        """Make the candidates of a dataset; reads the train rows if items are hashed and have several features."""
        rows = {} if len(side_features(data, "item")) == 1 else side_rows(data, "item")
        first = side_features(data, "item")[0]
        others = {name: of_items for name, of_items in rows.items() if name != first}
        return cls(first, data.table_rows[first], others, config.softmax.candidates, config.seed)

    def append(self, features: Mapping[str, tf.Tensor], epoch: tf.Tensor, batch: tf.Tensor) -> dict[str, tf.Tensor]:
        """Append the candidates, ascending, to a batch: features of the item side become `[batch + number]`.

        Args:
            features: int32 `[batch]` by feature.
            epoch: int64 scalar.
            batch: int64 scalar, another one for each batch of all workers in an epoch.
        """
        seed = tf.stack([tf.constant(self.seed, tf.int64) + _SALT, epoch * 2**40 + batch])
        drawn = tf.sort(tf.random.stateless_uniform([self.number], seed, maxval=self.num_items, dtype=tf.int32))
        chosen = {self.feature: drawn}
        for name, rows in self.others.items():
            chosen[name] = tf.gather(tf.constant(rows, tf.int32), drawn)
        return {
            name: tf.concat([ids, chosen[name]], axis=0) if name in chosen else ids for name, ids in features.items()
        }
