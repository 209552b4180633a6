"""What an export has learned of ids: their vectors and biases beside how often they occur, and which lie close."""

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

# Of the most frequent tokens: nobody looks at the neighbours of rarer ones, and 100,000 vectors take 26 MB.
_NAMED_TOKENS = 100_000


@dataclass(frozen=True)
class Embedding:
    """The table of a feature, in index order, the most frequent token first unless it is hashed.

    `counts`, `[rows]`, are rows of the train split; `table` is float32 `[rows, dim]`, the last unit the bias. Rows from
    `vocabulary_size` on are out-of-vocabulary buckets; with hashing it is 0. `tokens` are the first of the vocabulary,
    not all of a large one; hashed ids have none.
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
        """Of what the table has a row for: tokens of a vocabulary, or bins that occur, in falling order."""
        counts = self.counts if self.is_hashed else self.counts[: self.vocabulary_size]
        return -np.sort(-counts[counts > 0])


@dataclass(frozen=True)
class Neighbour:
    token: str
    count: int
    cosine: float


def norms(table: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Lengths of the vectors without the bias, `[rows]`."""
    return np.linalg.norm(table[:, :-1], axis=1)


def neighbours(embedding: Embedding, of: Sequence[int], top_k: int, least_count: int) -> Mapping[int, list[Neighbour]]:
    """The `top_k` nearest by cosine of the vectors without the bias, for each index in `of`.

    Tokens with fewer than `least_count` train rows are nobody's neighbours: their vectors are mostly what they were
    at the start.
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
    """By feature; reads the vocabularies of the dataset and the variables of the export, no graph of it.

    A feature is left out whose table is not there, or has not a row for each index of the dataset: the export is of
    another kind, or of another dataset.
    """
    try:
        data = Dataset.open(dataset, config)
    except DotbiasError:
        # With the configuration of another dataset, it is not known which rows hashed tokens have.
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
