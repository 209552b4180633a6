from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.conftest import SIDES, random_rows
from tests.trainer.datasets import write_dataset
from trainer.build import build_model
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.loop.defaults import with_automatic_values
from trainer.model.dot_bias import DotBias
from trainer.output.export import export_model

# Imports nothing but TensorFlow and NumPy, and not Keras 2.
LOAD = """
import json, sys
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
tokens = json.loads(sys.argv[2])
dtype = tf.string if isinstance(tokens["userId"][0], str) else tf.int64
out = serve(**{name: tf.constant(values, dtype) for name, values in tokens.items()})
assert list(out) == ["probability"], out
print(json.dumps(out["probability"].numpy().tolist()))
"""


def trained_like(data: Dataset, config: TrainerConfig) -> DotBias:
    """Makes a model with large random numbers in its tables, so that all indices differ in probability."""
    model = build_model(data, with_automatic_values(config, data), tf.distribute.get_strategy())
    rng = np.random.default_rng(3)
    for table in model.tables.values():
        table.assign(rng.normal(size=table.shape))
    model.calibration_scale.assign(0.7)
    model.calibration_offset.assign(-0.2)
    return model


def expected(model: DotBias, data: Dataset, tokens: dict[str, Any]) -> list[float]:
    """Computes P(positive) by hand: the index of each token, the formula, the map."""
    rows = {}
    for name, values in tokens.items():
        feature = data.manifest.features[name]
        texts = [str(token) for token in values]
        if name in data.num_bins:
            index = tf.strings.to_hash_bucket_fast(texts, data.num_bins[name]).numpy()
        else:
            vocabulary = Path(data.file(str(feature.vocabulary_path))).read_text().splitlines()
            oov = tf.strings.to_hash_bucket_fast(texts, feature.num_oov_buckets).numpy()
            index = [
                vocabulary.index(t) if t in vocabulary else len(vocabulary) + o for t, o in zip(texts, oov, strict=True)
            ]
        rows[name] = model.tables[name].numpy()[index].astype(np.float64)
    u, v = rows["userId"], rows["movieId"]
    logit = np.sum(u[:, :-1] * v[:, :-1], axis=1) + u[:, -1] + v[:, -1] + float(model.bias)
    return list(1 / (1 + np.exp(-(0.7 * logit - 0.2))))


@pytest.mark.parametrize("string_ids", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("hashed", [[], pytest.param(["movieId"], marks=pytest.mark.slow), ["userId", "movieId"]])
def test_raw_tokens_give_the_probabilities_of_the_model(tmp_path: Path, string_ids: bool, hashed: list[str]) -> None:
    write_dataset(
        tmp_path / "dataset",
        random_rows(300, 1, string_ids),
        random_rows(40, 2, string_ids),
        SIDES,
        hashed=hashed,
        frequency_threshold=8,
        num_oov_buckets=3,
    )
    config = TrainerConfig(embedding_dim=4, l2=0.0, hashing={name: {"num_bins": 17} for name in hashed})
    data = Dataset.open(str(tmp_path / "dataset"), config)
    model = trained_like(data, config)
    export_model(model, data, str(tmp_path / "export"))
    assert not (tmp_path / "export.tmp").exists()

    # Where the dataset is gone and the export is elsewhere.
    tokens: dict[str, Any] = {k: v for k, v in random_rows(60, 3, string_ids, users=50).items() if k != "label"}
    unknown = ["never seen", ""] if string_ids else [2**63 - 1, -(2**63)]
    tokens = {name: [*values, *unknown] for name, values in tokens.items()}
    answers = expected(model, data, tokens)
    shutil.rmtree(tmp_path / "dataset")
    shutil.move(tmp_path / "export", tmp_path / "served")
    serve = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    assert {n: (s.dtype, s.shape.as_list()) for n, s in serve.structured_input_signature[1].items()} == {
        name: (tf.string if string_ids else tf.int64, [None]) for name in SIDES
    }
    got = serve(**{name: tf.constant(v, tf.string if string_ids else tf.int64) for name, v in tokens.items()})
    np.testing.assert_allclose(got["probability"], answers, atol=1e-6)
    if not hashed:
        # Once with and once without strings in a process that holds TensorFlow alone.
        command = [sys.executable, "-c", LOAD, str(tmp_path / "served"), json.dumps(tokens)]
        output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
        np.testing.assert_allclose(json.loads(output), answers, atol=1e-6)


@pytest.mark.parametrize("string_ids", [False, True])
def test_an_empty_vocabulary_sends_all_tokens_to_the_oov_buckets(tmp_path: Path, string_ids: bool) -> None:
    rows = [random_rows(50, seed, string_ids) for seed in (1, 2)]
    write_dataset(tmp_path / "dataset", *rows, SIDES, frequency_threshold=99, num_oov_buckets=3)
    config = TrainerConfig(embedding_dim=4, l2=0.0)
    data = Dataset.open(str(tmp_path / "dataset"), config)
    assert data.table_rows == {"userId": 3, "movieId": 3}
    model = trained_like(data, config)
    export_model(model, data, str(tmp_path / "export"))
    tokens = {name: rows[0][name] for name in SIDES}
    served = tf.saved_model.load(str(tmp_path / "export"))
    got = served.signatures["serving_default"](**{name: tf.constant(np.array(v)) for name, v in tokens.items()})
    np.testing.assert_allclose(got["probability"], expected(model, data, tokens), atol=1e-6)


def test_an_export_is_replaced_whole(dataset: Dataset, config: TrainerConfig, tmp_path: Path) -> None:
    model = trained_like(dataset, config)
    leftover = tmp_path / "export" / "leftover"
    leftover.parent.mkdir()
    leftover.touch()
    export_model(model, dataset, str(tmp_path / "export"))
    assert not leftover.exists()
    assert (tmp_path / "export" / "saved_model.pb").exists()


def test_no_optimizer_slot_or_metric_is_exported(dataset: Dataset, config: TrainerConfig, tmp_path: Path) -> None:
    model = trained_like(dataset, config)
    export_model(model, dataset, str(tmp_path / "export"))
    variables = tf.train.list_variables(str(tmp_path / "export" / "variables" / "variables"))
    shapes = sorted(tuple(shape) for name, shape in variables if name != "_CHECKPOINTABLE_OBJECT_GRAPH")
    items = dataset.manifest.features["movieId"].vocabulary_size
    # Tokens, lengths of vectors, the longest, and what folds users in.
    lists = [(items,), (items,), (), (4,), (3,), (3, 3), (3,)]
    assert shapes == sorted([(), (), (), *lists, *((rows, 4) for rows in dataset.table_rows.values())])
