"""Reads the embeddings of an export, and what the dataset says of their rows."""

from __future__ import annotations

from itertools import islice

import tensorflow as tf

from dotbias.evaluation.exported.neighbours import Embedding
from pipeline.manifest import DotbiasError, join
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.model.tables import index_counts

# Of the most frequent tokens: nobody looks at the neighbours of rarer ones, and 100,000 vectors take 26 MB.
_NAMED_TOKENS = 100_000


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
