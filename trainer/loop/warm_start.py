"""Starts a training from the weights of a former one, whose vocabularies may differ.

Rows of tables and of the optimizer's slots are copied by token, and rows of hashed features by bin. A token that is not
in the former vocabulary starts with the row of its former OOV bucket and with empty slots. So before the first step the
model gives the predictions of the former model for every token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipeline.manifest import DotbiasError, read_manifest
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.lookup import TokenLookup
from trainer.loop.checkpoint import CarriedOver
from trainer.loop.defaults import objective_of
from trainer.loop.saved_state import read_state, read_weights, slots_of
from trainer.model.dot_bias import DotBias

# Tokens that are looked up at once.
_TOKENS_AT_A_TIME = 1 << 20


@dataclass(frozen=True)
class WarmStart:
    """Names the finished training to start from: the directory of its dataset, and that of its model."""

    dataset: str
    model_dir: str


class ColdStart(Exception):
    """Says why a training cannot start from a former one."""


@dataclass(frozen=True)
class Former:
    """Describes a former training whose weights fit a new one.

    Attributes:
        fingerprint: identifies it.
        model_dir: holds its state, see `saved_state`.
        data: its dataset, whose vocabularies are read.
    """

    fingerprint: str
    model_dir: str
    data: Dataset

    @classmethod
    def open(cls, start: WarmStart, identity: str | None, data: Dataset, config: TrainerConfig) -> Former:
        """Check that a former training fits a new one, without reading its weights.

        Args:
            start: the former training.
            identity: its fingerprint, None if it is not finished.
            data: the dataset of the new training.
            config: the options of the new training.

        Raises:
            ColdStart: it does not fit.
        """
        if identity is None:
            raise ColdStart(f"{start.model_dir} holds no finished model with a fingerprint")
        state = read_state(start.model_dir)
        if state is None or state.fingerprint != identity:
            raise ColdStart(f"{start.model_dir} holds no state of its model")
        try:
            manifest = read_manifest(start.dataset, tf.io.gfile.GFile)
        except DotbiasError as error:
            raise ColdStart(str(error)) from None
        former = Dataset(start.dataset, manifest, state.num_bins)
        if former.fingerprint != state.dataset:
            raise ColdStart(f"{start.dataset} is not the dataset that {start.model_dir} was trained on")
        for what, old, new in (
            ("`trainer.embedding_dim`", state.embedding_dim, config.embedding_dim),
            ("`trainer.optimizer.name`", state.optimizer, config.optimizer.name),
            ("`trainer.objective`", state.objective, objective_of(config, data)),
            *_differing_features(former, data),
        ):
            if old != new:
                raise ColdStart(f"{what} was {old}, and is {new}")
        for feature in manifest.features.values():
            if feature.vocabulary_path and not tf.io.gfile.exists(path := former.file(feature.vocabulary_path)):
                raise ColdStart(f"{path} is missing")
        return cls(identity, start.model_dir, former)

    def carry_over(self, model: DotBias, data: Dataset) -> dict[str, CarriedOver]:
        """Assign the former weights and slots to a model of `data`; return the counts of tokens, by feature.

        One table or slot is in memory at a time. The optimizer's slots must exist.

        Raises:
            DotbiasError: the former weights cannot be read.
        """
        read = read_weights(self.model_dir)
        counts = {}
        for name, table in model.tables.items():
            rows, kept, counts[name] = self._former_rows(data, name)
            former = read("tables", name)
            values = former[rows]
            if (elsewhere := rows < 0).any():
                values[elsewhere] = former[self.data.manifest.features[name].vocabulary_size :].mean(axis=0)
            table.assign(values)
            del former, values
            for slot_name, slot in slots_of(model, table).items():
                values = read("table_slots", name, slot_name)[rows]
                # All rows of a new slot are equal.
                values[~kept] = tf.gather(slot, 0).numpy()
                slot.assign(values)
        model.bias.assign(read("bias"))
        for slot_name, slot in slots_of(model, model.bias).items():
            slot.assign(read("bias_slots", slot_name))
        model.optimizer.iterations.assign(read("step"))
        return counts

    def _former_rows(
        self, data: Dataset, name: str
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], CarriedOver]:
        """Return the former row of each new row, and whether the slots are carried over too, both `[table rows]`.

        The former row of a new token is that of its OOV bucket. If the number of OOV buckets has changed, theirs is -1:
        they start at the mean of the former ones.
        """
        old, new = self.data.manifest.features[name], data.manifest.features[name]
        if new.vocabulary_size is None or old.vocabulary_size is None:
            bins = data.num_bins[name]
            return np.arange(bins), np.ones(bins, np.bool_), CarriedOver(kept=bins, new=0, gone=0)
        lookup = TokenLookup(self.data, name)
        rows = np.concatenate([np.zeros(0, np.int64), *(lookup(tokens).numpy() for tokens in _vocabulary(data, name))])
        kept = rows < old.vocabulary_size
        count = int(kept.sum())
        counts = CarriedOver(kept=count, new=len(rows) - count, gone=old.vocabulary_size - count)
        assert old.num_oov_buckets is not None and new.num_oov_buckets is not None
        same_buckets = old.num_oov_buckets == new.num_oov_buckets
        buckets = np.arange(old.vocabulary_size, old.num_indices) if same_buckets else np.full(new.num_oov_buckets, -1)
        return np.append(rows, buckets), np.append(kept, np.full(new.num_oov_buckets, same_buckets)), counts


def _differing_features(old: Dataset, new: Dataset) -> Iterator[tuple[str, object, object]]:
    """Yield each property that two datasets must share, with both values."""
    yield "the list of features", sorted(old.sides), sorted(new.sides)
    for name in new.sides:
        one, other = old.manifest.features[name], new.manifest.features[name]
        for key in ("side", "encoding", "token_dtype"):
            yield f"`{key}` of {name}", getattr(one, key), getattr(other, key)
        yield f"the number of bins of {name}", old.num_bins.get(name), new.num_bins.get(name)


def _vocabulary(data: Dataset, name: str) -> Iterator[tf.Tensor]:
    """Yield the tokens of a vocabulary in the order of their rows, in the column's own type, `[tokens]`."""
    feature = data.manifest.features[name]
    assert feature.vocabulary_path is not None
    for lines in tf.data.TextLineDataset(data.file(feature.vocabulary_path)).batch(_TOKENS_AT_A_TIME):
        yield lines if feature.token_dtype == "string" else tf.strings.to_number(lines, tf.int64)
