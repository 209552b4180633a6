"""Checks which variants a comparison tries, and that they differ only in the encoding."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dotbias.evaluation.encodings.variants import (
    CompareConfig,
    describe,
    make_variants,
    tokens_pipeline,
    with_thresholds,
)
from pipeline.config import FeatureConfig, PipelineConfig
from trainer.config import TrainerConfig

DISTINCT = {"userId": 1000, "movieId": 201, "genre": 3}


def pipeline(**features: dict[str, Any]) -> PipelineConfig:
    sides = {"userId": "user", "movieId": "item", "genre": "item"}
    config = PipelineConfig.model_validate(
        {
            "columns": {**dict.fromkeys(features, "int64"), "clicked": "int64"},
            "label": {"column": "clicked"},
            "features": {name: {"side": sides[name], **options} for name, options in features.items()},
        }
    )
    return with_thresholds(config, rows=1000, once=dict.fromkeys(features, 49))


def names(config: PipelineConfig, trainer: TrainerConfig, **compare: Any) -> list[str]:
    variants = make_variants(config, trainer, CompareConfig.model_validate(compare), DISTINCT)
    assert len({variant.name for variant in variants}) == len(variants)
    return [variant.name for variant in variants]


def test_by_default_thresholds_and_bins_around_what_is_configured() -> None:
    config = pipeline(userId={}, movieId={})
    # The threshold of 2 is the configuration's own.
    assert names(config, TrainerConfig()) == [
        *("configured", "reseeded", "threshold-1", "threshold-5"),
        *("hashing-0.25", "hashing-1", "hashing-4"),
    ]


@pytest.mark.parametrize(
    ("compare", "expected"),
    [
        ({"frequency_thresholds": [], "bins_per_id": []}, ["configured", "reseeded"]),
        ({"frequency_thresholds": [3], "bins_per_id": []}, ["configured", "reseeded", "threshold-3"]),
        # Twice the same is once.
        ({"frequency_thresholds": [3, 3, 2], "bins_per_id": []}, ["configured", "reseeded", "threshold-3"]),
        (
            {"frequency_thresholds": [], "top_k": [10], "bins_per_id": [0.5]},
            ["configured", "reseeded", "top-10", "hashing-0.5"],
        ),
    ],
)
def test_lists_of_the_configuration(compare: dict[str, Any], expected: list[str]) -> None:
    assert names(pipeline(userId={}, movieId={}), TrainerConfig(), **compare) == expected


def test_an_open_threshold_is_that_of_the_pipeline() -> None:
    config = pipeline(userId={"frequency_threshold": 7}, movieId={})
    config = config.model_copy(update={"features": {**config.features, "genre": FeatureConfig(side="item")}})
    found = with_thresholds(config, rows=1000, once={"userId": 500, "movieId": 500, "genre": 50}).features
    assert {name: feature.frequency_threshold for name, feature in found.items()} == {
        "userId": 7,
        "movieId": 2,
        "genre": 1,
    }


def test_variants_differ_in_the_encoding_alone() -> None:
    config = pipeline(userId={"num_oov_buckets": 7, "top_k": 50}, movieId={})
    first, *others = make_variants(config, TrainerConfig(seed=5, l2=0.3), CompareConfig(top_k=(9,)), DISTINCT)
    # Eval rows must not have been trained on.
    assert first.pipeline == config and first.trainer == TrainerConfig(seed=5, l2=0.3, refit=False)
    for variant in others:
        assert variant.pipeline.model_copy(update={"features": config.features}) == config
        seed = 6 if variant.kind == "reseeded" else 5
        assert variant.trainer.model_copy(update={"hashing": {}}) == TrainerConfig(seed=seed, l2=0.3, refit=False)
        # As if it had been read from a file: nothing is left of another encoding.
        assert PipelineConfig.model_validate(variant.pipeline.model_dump()) == variant.pipeline
    by_name = {variant.name: variant for variant in others}
    threshold = by_name["threshold-5"].pipeline.features["userId"]
    assert (threshold.frequency_threshold, threshold.top_k, threshold.num_oov_buckets) == (5, 50, 7)
    hashing = by_name["hashing-0.25"].trainer.hashing
    assert {name: h.num_bins for name, h in hashing.items()} == {"userId": 250, "movieId": 51}


def test_a_configuration_with_hashing_is_compared_with_vocabularies() -> None:
    config = pipeline(userId={"encoding": "hashing"}, movieId={"encoding": "hashing"})
    trainer = TrainerConfig.model_validate({"hashing": {"userId": {"num_bins": 9}, "movieId": {"num_bins": 201}}})
    variants = {v.name: v for v in make_variants(config, trainer, CompareConfig(), DISTINCT)}
    assert variants["configured"].dataset == variants["reseeded"].dataset == variants["hashing-1"].dataset == "tokens"
    assert variants["threshold-2"].trainer.hashing == {}
    assert variants["threshold-2"].dataset == "threshold-2"
    assert variants["configured"].title == "as configured: userId hashing, 9 bins; movieId hashing, 201 bins"


def test_some_features_keep_their_encoding() -> None:
    config = pipeline(userId={}, movieId={}, genre={"encoding": "hashing"})
    trainer = TrainerConfig.model_validate({"hashing": {"genre": {"num_bins": 3}}})
    compare = CompareConfig(features=("movieId",), bins_per_id=(2.0,))
    variants = {v.name: v for v in make_variants(config, trainer, compare, DISTINCT)}
    hashed = variants["hashing-2"]
    assert describe(hashed.pipeline, hashed.trainer) == (
        "userId vocabulary, threshold 2; movieId hashing, 402 bins; genre hashing, 3 bins"
    )
    assert hashed.dataset == "hashing" and variants["configured"].dataset == "configured"
    assert {name: f.frequency_threshold for name, f in variants["threshold-5"].pipeline.features.items()} == {
        "userId": 2,
        "movieId": 5,
        # It is hashed.
        "genre": None,
    }
    assert all(f.encoding == "hashing" for f in tokens_pipeline(config).features.values())


@pytest.mark.parametrize("compare", [{"bins_per_id": [0]}, {"frequency_thresholds": [0]}, {"bins": [1]}])
def test_values_out_of_range_are_refused(compare: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CompareConfig.model_validate(compare)
