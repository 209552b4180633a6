"""Compares the indices of the job and of the saved graph with a separate lookup."""

from __future__ import annotations

import functools
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from pipeline.config import PipelineConfig
from pipeline.vocabulary.frequency import FrequencyVocabulary
from pipeline.vocabulary.transform import as_lists, preprocessing_fn, tensor_adapter_config, without_lists

# By feature: one bucket is looked up in another way than several.
OOV_BUCKETS = [{"user": 3, "item_name": 1}, {"user": 1, "item_name": 3}]
CONFIG = PipelineConfig.model_validate(
    {
        "columns": {"user": "int64", "item_name": "string", "shop": "string", "rating": "float32"},
        "label": {"column": "rating"},
        "features": {
            "user": {"side": "user"},
            "item_name": {"side": "item"},
            "shop": {"side": "item", "encoding": "hashing"},
        },
    }
)
SCHEMA = pa.schema([("user", pa.int64()), ("item_name", pa.string()), ("shop", pa.string())])
PASSTHROUGH = pa.schema([("label", pa.float32())])
# Of each, the first few are frequent enough for the vocabulary; the order is that of the counts.
USERS = [-7, 12, 10, 9, 2**63 - 1, *range(100, 140)]
ITEMS = ["a,b", 'say "hi"', " a ", "日本", "naïve", *(f"rare {number}" for number in range(40))]
FREQUENT = 5


def rows() -> pa.RecordBatch:
    ranks = [rank for rank in range(len(USERS)) for _ in range(10 - rank if rank < FREQUENT else 1)]
    return pa.record_batch([[USERS[r] for r in ranks], [ITEMS[r] for r in ranks], [ITEMS[-r] for r in ranks]], SCHEMA)


def indices(tokens: list[int] | list[str], vocabulary: list[int] | list[str], num_oov_buckets: int) -> list[int]:
    """Places in the vocabulary, and behind it the bucket of the token's text by farmhash."""
    places = {token: place for place, token in enumerate(vocabulary)}
    buckets = tf.strings.to_hash_bucket_fast([str(token) for token in tokens], num_oov_buckets).numpy().tolist()
    return [places.get(token, len(places) + bucket) for token, bucket in zip(tokens, buckets, strict=True)]


def expected(batch: pa.RecordBatch, num_oov_buckets: dict[str, int]) -> list[tuple[int, int, str]]:
    users = indices(batch["user"].to_pylist(), USERS[:FREQUENT], num_oov_buckets["user"])
    items = indices(batch["item_name"].to_pylist(), ITEMS[:FREQUENT], num_oov_buckets["item_name"])
    return list(zip(users, items, batch["shop"].to_pylist(), strict=True))


@pytest.fixture(scope="module", params=OOV_BUCKETS, ids=str)
def encoding(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """Runs a job, checks its encoded rows, and returns the path of its transform_fn, and its numbers of buckets."""
    num_oov_buckets: dict[str, int] = request.param
    directory = tmp_path_factory.mktemp("encoding")
    vocabularies = {
        name: FrequencyVocabulary(
            feature=name,
            path=str(directory / "vocabulary" / f"{name}.txt"),
            counts_path=str(directory / "vocabulary" / f"{name}.counts.txt"),
            info_path=str(directory / "vocabulary" / f"{name}.json"),
            temporary=str(directory / ".tmp"),
            token_type="int64" if name == "user" else "string",
            frequency_threshold=2,
            top_k=None,
            num_partitions=2,
        )
        for name in ("user", "item_name")
    }
    features = {
        name: feature.model_copy(update={"num_oov_buckets": num_oov_buckets.get(name, 1)})
        for name, feature in CONFIG.features.items()
    }
    encode = functools.partial(preprocessing_fn, features=features, vocabularies=vocabularies)
    tokens = rows()
    labelled = tokens.append_column("label", pa.array(np.linspace(0, 1, len(tokens)), pa.float32()))
    with (
        beam.Pipeline(FnApiRunner()) as pipeline,
        tft_beam.Context(temp_dir=str(directory / "tft"), passthrough_keys=set(PASSTHROUGH.names)),
    ):
        batches = [labelled[start : start + 30] for start in range(0, len(labelled), 30)]
        train = pipeline | "Train" >> beam.Create([as_lists(batch.select(SCHEMA.names)) for batch in batches])
        transform_fn = (train, tensor_adapter_config(CONFIG, pa.schema([]))) | tft_beam.AnalyzeDataset(encode)
        everything = pipeline | "All" >> beam.Create([as_lists(batch) for batch in batches])
        (encoded, _) = (
            (everything, tensor_adapter_config(CONFIG, PASSTHROUGH)),
            transform_fn,
        ) | tft_beam.TransformDataset(output_record_batches=True)
        _ = transform_fn | tft_beam.WriteTransformFn(str(directory))
        # Batch by batch, labels still beside their tokens.
        rows_expected = expected(tokens, num_oov_buckets)
        right = [(*row, label) for row, label in zip(rows_expected, labelled["label"].to_pylist(), strict=True)]
        assert_that(encoded | beam.FlatMap(encoded_tuples), equal_to(right))
    return directory, num_oov_buckets


def encoded_tuples(transformed: tuple[pa.RecordBatch, object]) -> list[tuple[int, int, str, float]]:
    flat = without_lists(transformed[0])
    columns = [flat[name].to_pylist() for name in ("user", "item_name", "shop", "label")]
    columns[2] = [shop.decode() for shop in columns[2]]
    return list(zip(*columns, strict=True))


def test_vocabularies(encoding: tuple[Path, dict[str, int]]) -> None:
    directory, _ = encoding
    assert (directory / "vocabulary/user.txt").read_text() == "".join(f"{user}\n" for user in USERS[:FREQUENT])
    assert (directory / "vocabulary/item_name.txt").read_text() == "".join(f"{item}\n" for item in ITEMS[:FREQUENT])


def test_the_saved_graph_gives_the_same_indices(encoding: tuple[Path, dict[str, int]]) -> None:
    directory, num_oov_buckets = encoding
    tokens = rows()
    # Tokens that the job never saw, too.
    strangers = pa.record_batch([[0, -1, 2**62], ["", "new", "a"], ["x", "y", "z"]], SCHEMA)
    output = tft.TFTransformOutput(str(directory))
    for batch in (tokens, strangers):
        encoded = output.transform_raw_features({name: tf.constant(batch[name].to_pylist()) for name in SCHEMA.names})
        shops = [shop.decode() for shop in encoded["shop"].numpy()]
        found = zip(encoded["user"].numpy().tolist(), encoded["item_name"].numpy().tolist(), shops, strict=True)
        assert list(found) == expected(batch, num_oov_buckets)


def test_unfrequent_tokens_use_all_buckets() -> None:
    """Uses all buckets, so that the tests above would notice a wrong hash."""
    for tokens in (USERS, ITEMS):
        rare = indices(tokens, tokens[:FREQUENT], 3)[FREQUENT:]
        assert set(rare) == {FREQUENT, FREQUENT + 1, FREQUENT + 2}


def test_lists() -> None:
    batch = rows()
    assert as_lists(batch)["user"].to_pylist() == [[user] for user in batch["user"].to_pylist()]
    assert without_lists(as_lists(batch)).equals(batch)
    assert without_lists(as_lists(batch[5:9])).equals(batch[5:9])
    assert as_lists(batch[:0]).num_rows == 0
