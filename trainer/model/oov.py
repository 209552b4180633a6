"""Gives OOV buckets that no train row looks up an embedding that suits new ids.

With `frequency_threshold: 1`, or where every id is frequent, all tokens of the train rows are in the vocabulary. The
OOV rows of the tables then keep their random initial vectors, although new ids will look them up. Here they are fitted
to train rows, as if each of these rows had a new id.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.reader import read_batches
from trainer.model.dot_bias import DotBias
from trainer.model.logistic import fit_logistic
from trainer.model.tables import l2_weights, vocabulary_counts

# More would hardly change the fit of some tens of numbers; a fit of this size and 64 units takes half a second.
_LARGEST_SAMPLE = 1 << 14
# Shards are shuffled, so that the first rows are a sample; reading them takes about a second.
_ROWS_TO_READ = 1 << 22
_ROWS_AT_A_TIME = 1 << 16
# Keeps the fit finite with `trainer.l2: 0`, also where a vector separates positive and negative rows.
_SMALLEST_L2 = 1e-3


class _Sample(NamedTuple):
    """Holds train rows: indices int32 `[rows]` by feature, and labels float32 `[rows]`."""

    features: dict[str, npt.NDArray[np.int32]]
    label: npt.NDArray[np.float32]


class OovEmbeddings:
    """Fits the OOV embeddings of the features whose OOV buckets have less than one train row each.

    A fit is a logistic regression on a sample of train rows, with the loss and the L2 of the model; only the OOV rows
    change. A row is drawn in proportion to 1 / count of its id, so that each id has about one row: new ids resemble
    rare ones.
    """

    def __init__(self, model: DotBias, data: Dataset, config: TrainerConfig) -> None:
        assert config.l2 is not None and config.bias_l2_factor is not None
        self._model = model
        self._data = data
        self._seed = config.seed
        self._l2 = max(config.l2, _SMALLEST_L2)
        self._bias_l2_factor = config.bias_l2_factor
        # By feature; the rows are read when they are needed for the first time.
        self._samples: dict[str, _Sample] | None = None

    def fit(self, split: str | None = None) -> None:
        """Write the OOV rows into the tables; with `split`, only of features whose OOV rows that split looks up."""
        names = untrained(self._data)
        if split is not None:
            names = [name for name in names if (self._data.manifest.features[name].oov_rows or {}).get(split)]
        if not names:
            return
        if self._samples is None:
            self._samples = _draw(self._data, self._seed)
        for name in names:
            feature, table = self._data.manifest.features[name], self._model.tables[name]
            assert feature.vocabulary_size is not None and feature.num_oov_buckets is not None
            embedding = tf.constant(self._fitted(name, self._samples[name]), tf.float32)
            buckets = tf.range(feature.vocabulary_size, feature.num_indices)
            rows = tf.IndexedSlices(tf.tile(embedding[tf.newaxis], [feature.num_oov_buckets, 1]), buckets)
            for copy in self._model.distribute_strategy.experimental_local_results(table):
                copy.scatter_update(rows)

    def _fitted(self, name: str, sample: _Sample) -> npt.NDArray[np.float64]:
        """Return the embedding `[dim]`, the bias last, that predicts the labels of the sample best."""
        model = self._model
        # Summed over the features of each side, without the one that is fitted: `[rows, dim]`.
        sums = {side: np.zeros((len(sample.label), model.tables[name].shape[1])) for side in ("user", "item")}
        for feature, table in model.tables.items():
            if feature != name:
                sums[model.sides[feature]] += tf.gather(table, sample.features[feature]).numpy()
        own = sums.pop(model.sides[name])
        (other,) = sums.values()
        offset = (
            np.sum(own[:, :-1] * other[:, :-1], axis=1) + own[:, -1] + other[:, -1] + float(model.bias.read_value())
        )
        # The other side's bias unit has become part of the offset; the one that is fitted counts as it is.
        other[:, -1] = 1
        l2 = np.full(other.shape[1], self._l2 * float(l2_weights(np.array([len(other)], np.float32))[0]))
        l2[-1] *= self._bias_l2_factor
        return fit_logistic(other, sample.label.astype(np.float64), np.zeros_like(l2), offset=offset, l2=l2)


def untrained(data: Dataset) -> list[str]:
    """List the features whose OOV buckets have less than one train row each, on average."""
    return [
        name
        for name, feature in data.manifest.features.items()
        if feature.oov_rows is not None and feature.oov_rows["train"] < (feature.num_oov_buckets or 0)
    ]


def _draw(data: Dataset, seed: int) -> dict[str, _Sample]:
    """Draw for each feature of `untrained` as many train rows as it has ids, but at most 16,384.

    A row has an exponential random number, divided by its weight 1 / count; the rows with the smallest are drawn
    (P. Efraimidis and P. Spirakis, "Weighted random sampling with a reservoir", 2006).
    """
    rng = np.random.default_rng(seed)
    counts = {name: np.maximum(vocabulary_counts(data, name), 1) for name in untrained(data)}
    keys = {name: np.zeros(0) for name in counts}
    empty = _Sample({name: np.zeros(0, np.int32) for name in data.sides}, np.zeros(0, np.float32))
    samples = dict.fromkeys(counts, empty)
    read = 0
    for features, label in read_batches(data, "train", _ROWS_AT_A_TIME):
        ids = {name: values.numpy() for name, values in features.items()}
        for name, sample in samples.items():
            drawn = np.append(keys[name], rng.exponential(size=len(label)) * counts[name][ids[name]])
            size = min(_LARGEST_SAMPLE, len(counts[name]))
            kept = np.sort(np.argpartition(drawn, size)[:size]) if len(drawn) > size else np.arange(len(drawn))
            keys[name] = drawn[kept]
            samples[name] = _Sample(
                {key: np.append(sample.features[key], values)[kept] for key, values in ids.items()},
                np.append(sample.label, label.numpy())[kept],
            )
        read += len(label)
        if read >= _ROWS_TO_READ:
            break
    return samples
