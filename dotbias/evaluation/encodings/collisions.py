"""Measures an encoding: which ids share an embedding, so that the model cannot tell them apart.

With `hashing`, chance decides: of n ids in m bins, an id shares its embedding with another one with probability
1 - exp(-n / m) (K. Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009, accept that). With
`vocabulary`, rare ids share the embeddings of the OOV buckets.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dotbias.evaluation.encodings.comparison import FeatureEncoding
from dotbias.evaluation.exported.client import as_tensor
from dotbias.evaluation.rows import Rows
from trainer.data.dataset import Dataset
from trainer.data.lookup import TokenLookup


def measure_encodings(data: Dataset, train: Rows) -> dict[str, FeatureEncoding]:
    """Measures the encoding of each feature.

    Args:
        data: the dataset whose encoding is measured, with the trainer's options.
        train: the same train rows, with the ids themselves.
    """
    return {name: _measure(data, name, train) for name in data.manifest.features}


def _measure(data: Dataset, name: str, train: Rows) -> FeatureEncoding:
    ids = train.ids[name].tokens[: train.ids[name].known]
    counts = np.bincount(train.codes[name], minlength=len(ids))
    collides = share_an_embedding(TokenLookup(data, name)(as_tensor(ids)).numpy())
    feature, num_bins = data.manifest.features[name], data.num_bins.get(name)
    oov = None
    if feature.oov_rows is not None:
        oov = {split: rows / max(data.split(split).rows, 1) for split, rows in feature.oov_rows.items()}
    return FeatureEncoding(
        distinct_ids=len(ids),
        table_rows=data.table_rows[name],
        colliding_ids=float(collides.mean()),
        expected_colliding_ids=None if num_bins is None else expected_collisions(len(ids), num_bins),
        colliding_rows=float(counts @ collides / counts.sum()),
        oov_rows=oov,
    )


def share_an_embedding(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Returns for each id whether another id has the same table row; `rows` and the result are `[ids]`."""
    _, inverse, counts = np.unique(rows, return_inverse=True, return_counts=True)
    return counts[inverse] > 1


def expected_collisions(ids: int, num_bins: int) -> float:
    """Computes the expected share of ids that share their embedding with another id: 1 - exp(-ids / num_bins)."""
    return -math.expm1(-ids / num_bins)
