"""Reads the embedding tables of an export, with the frequencies of ids, and finds nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipeline.manifest import DotbiasError, Side, join
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.model.tables import index_counts

# Only the most frequent tokens get names: neighbours of rarer ones are not shown, and 100,000 vectors take 26 MB.
_NAMED_TOKENS = 100_000


@dataclass(frozen=True)
class Embedding:
    """Holds the table of a feature in index order: the most frequent token first, unless ids are hashed.

    `counts`, `[rows]`, are numbers of train rows. `table` is float32 `[rows, dim]`; its last column is the bias. Table
    rows from `vocabulary_size` on are OOV buckets; with hashing `vocabulary_size` is 0. `tokens` are the first tokens
    of the vocabulary, at most 100,000; hashed ids have none.
    """

    side: Side
    counts: npt.NDArray[np.float32]
    table: npt.NDArray[np.float32]
    vocabulary_size: int
    tokens: Sequence[str]

    @property
    def is_hashed(self) -> bool:
        return self.vocabulary_size == 0

    @property
    def known_counts(self) -> npt.NDArray[np.float32]:
        """Returns the train rows of each token of a vocabulary, or of each bin that occurs, in falling order."""
        counts = self.counts if self.is_hashed else self.counts[: self.vocabulary_size]
        return -np.sort(-counts[counts > 0])


@dataclass(frozen=True)
class Neighbour:
    """Holds a token near another one, with its train rows and the cosine of the two vectors."""

    token: str
    count: int
    cosine: float


def norms(table: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Computes the lengths of vectors without the bias, `[rows]`."""
    return np.linalg.norm(table[:, :-1], axis=1)


def neighbours(embedding: Embedding, of: Sequence[int], top_k: int, least_count: int) -> Mapping[int, list[Neighbour]]:
    """Finds the `top_k` nearest tokens for each index in `of`, by cosine of the vectors without the bias.

    Tokens with fewer than `least_count` train rows are left out: their vectors are mostly initial values.
    """
    size = int((embedding.counts[: len(embedding.tokens)] >= least_count).sum())
    vectors = embedding.table[: len(embedding.tokens), :-1]
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    found = {}
    for index in of:
        cosines = vectors[:size] @ vectors[index]
        if index < size:
            cosines[index] = -np.inf
        nearest = np.argsort(-cosines, kind="stable")[: min(top_k, size - (index < size))]
        found[index] = [
            Neighbour(embedding.tokens[i], int(embedding.counts[i]), float(cosines[i])) for i in nearest.tolist()
        ]
    return found


def read_embeddings(dataset: str, export: str, config: TrainerConfig) -> dict[str, Embedding]:
    """Reads the embeddings by feature, from the vocabularies of the dataset and the variables of the export.

    A feature is left out if the export has no table for it, or not one row for each index of the dataset: then the
    export is another kind of model, or from another dataset.
    """
    try:
        data = Dataset.open(dataset, config)
    except DotbiasError:
        # The options do not fit the dataset, so the numbers of bins are unknown.
        return {}
    counts = index_counts(data)
    variables = tf.train.load_checkpoint(join(export, "variables", "variables"))
    shapes = variables.get_variable_to_shape_map()
    found = {}
    for name, feature in data.manifest.features.items():
        variable = f"tables/{name}/.ATTRIBUTES/VARIABLE_VALUE"
        if shapes.get(variable, [0])[0] != len(counts[name]):
            continue
        tokens: list[str] = []
        if feature.vocabulary_path is not None:
            with tf.io.gfile.GFile(data.file(feature.vocabulary_path)) as file:
                tokens = [line.rstrip("\n") for line in islice(file, _NAMED_TOKENS)]
        found[name] = Embedding(
            side=feature.side,
            counts=counts[name],
            table=variables.get_tensor(variable),
            vocabulary_size=feature.vocabulary_size or 0,
            tokens=tokens,
        )
    return found
