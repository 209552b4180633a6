"""Makes the variants that `--stage compare_encodings` tries: the configuration with other encodings of its ids."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pipeline.config import FeatureConfig, PipelineConfig
from pipeline.vocabulary.threshold import automatic_threshold
from trainer.config import HashingConfig, TrainerConfig

Kind = Literal["configured", "reseeded", "vocabulary", "hashing"]

# Names of datasets. In `tokens` all ids are hashed by the trainer, so its shards hold the ids themselves.
CONFIGURED, TOKENS = "configured", "tokens"


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class CompareConfig(BaseModel):
    """Defines the optional `compare` section of a configuration. Each entry of a list adds one training."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # None: all features. The others keep their encoding.
    features: Annotated[tuple[str, ...] | None, BeforeValidator(_as_tuple)] = None
    frequency_thresholds: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_as_tuple)] = (1, 2, 5)
    # With the configured threshold.
    top_k: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_as_tuple)] = ()
    # Bins per distinct train id: with 0.25 nearly every id shares its bin, with 4 most ids have their own.
    bins_per_id: Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(_as_tuple)] = (0.25, 1.0, 4.0)


@dataclass(frozen=True)
class Variant:
    """Holds a configuration to try; `name` is that of its directory, and `title` is shown to people."""

    name: str
    title: str
    kind: Kind
    pipeline: PipelineConfig
    trainer: TrainerConfig

    @property
    def dataset(self) -> str:
        """Returns the name of the dataset; variants that differ only in the trainer share one."""
        if all(feature.encoding == "hashing" for feature in self.pipeline.features.values()):
            return TOKENS
        if self.kind == "hashing":
            return "hashing"
        return CONFIGURED if self.kind == "reseeded" else self.name


def tokens_pipeline(pipeline: PipelineConfig) -> PipelineConfig:
    """Makes the configuration of a dataset of the same rows with the ids as they are."""
    hashed = {name: FeatureConfig(side=feature.side, encoding="hashing") for name, feature in pipeline.features.items()}
    return pipeline.model_copy(update={"features": hashed})


def with_thresholds(pipeline: PipelineConfig, rows: int, once: Mapping[str, int]) -> PipelineConfig:
    """Fills in the frequency thresholds that the configuration leaves open, as the pipeline chooses them.

    Args:
        pipeline: section `pipeline` of the configuration.
        rows: number of train rows.
        once: by feature, the number of ids that occur once in them.
    """
    features = {
        name: feature.model_copy(
            update={"frequency_threshold": pipeline.threshold_of(name) or automatic_threshold(rows, once[name])}
        )
        if feature.encoding == "vocabulary"
        else feature
        for name, feature in pipeline.features.items()
    }
    return pipeline.model_copy(update={"features": features})


def make_variants(
    pipeline: PipelineConfig, trainer: TrainerConfig, compare: CompareConfig, distinct_ids: Mapping[str, int]
) -> list[Variant]:
    """Makes all variants: first the configuration as it is, then with another seed of the trainer, then the others.

    None is refitted, since the eval rows must stay unseen. A variant that equals the configuration is left out.

    Args:
        pipeline: section `pipeline` of the configuration.
        trainer: section `trainer`.
        compare: section `compare`: which variants to make.
        distinct_ids: number of distinct train ids by feature; `compare.bins_per_id` is relative to it.
    """
    trainer = trainer.model_copy(update={"refit": False})
    names = list(pipeline.features) if compare.features is None else list(compare.features)
    configured = Variant(CONFIGURED, f"as configured: {describe(pipeline, trainer)}", "configured", pipeline, trainer)
    reseeded = trainer.model_copy(update={"seed": trainer.seed + 1})
    variants = [configured, Variant("reseeded", "as configured, another seed", "reseeded", pipeline, reseeded)]
    for threshold in compare.frequency_thresholds:
        changed = _with_vocabulary(pipeline, names, {"frequency_threshold": threshold})
        variants.append(
            _variant(f"threshold-{threshold}", f"vocabulary, threshold {threshold}", "vocabulary", changed, trainer)
        )
    for top_k in compare.top_k:
        changed = _with_vocabulary(pipeline, names, {"top_k": top_k})
        variants.append(_variant(f"top-{top_k}", f"vocabulary, top {top_k:,}", "vocabulary", changed, trainer))
    for ratio in compare.bins_per_id:
        hashing = {name: HashingConfig(num_bins=max(math.ceil(ratio * distinct_ids[name]), 1)) for name in names}
        variants.append(
            _variant(
                f"hashing-{ratio:g}",
                f"hashing, {ratio:g} {'bin' if ratio == 1 else 'bins'} per id",
                "hashing",
                _with_hashing(pipeline, names),
                trainer.model_copy(update={"hashing": {**trainer.hashing, **hashing}}),
            )
        )
    return _without_repetitions(variants)


def describe(pipeline: PipelineConfig, trainer: TrainerConfig) -> str:
    """Describes the encoding in a few words, by feature where they differ."""
    words = {name: _describe(feature, trainer.hashing.get(name)) for name, feature in pipeline.features.items()}
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return "; ".join(f"{name} {text}" for name, text in words.items())


def _describe(feature: FeatureConfig, hashing: HashingConfig | None) -> str:
    if feature.encoding == "vocabulary":
        top = "" if feature.top_k is None else f", top {feature.top_k:,}"
        return f"vocabulary, threshold {feature.frequency_threshold}{top}"
    assert hashing is not None
    return f"hashing, {hashing.num_bins:,} bins"


def _variant(name: str, title: str, kind: Kind, pipeline: PipelineConfig, trainer: TrainerConfig) -> Variant:
    # The trainer refuses options for bins of features that are not hashed.
    hashed = {name for name, feature in pipeline.features.items() if feature.encoding == "hashing"}
    hashing = {name: options for name, options in trainer.hashing.items() if name in hashed}
    return Variant(name, title, kind, pipeline, trainer.model_copy(update={"hashing": hashing}))


def _with_vocabulary(pipeline: PipelineConfig, names: list[str], options: Mapping[str, int]) -> PipelineConfig:
    changed = {name: pipeline.features[name].model_copy(update={"encoding": "vocabulary", **options}) for name in names}
    return pipeline.model_copy(update={"features": {**pipeline.features, **changed}})


def _with_hashing(pipeline: PipelineConfig, names: list[str]) -> PipelineConfig:
    hashed = tokens_pipeline(pipeline).features
    return pipeline.model_copy(update={"features": {**pipeline.features, **{name: hashed[name] for name in names}}})


def _without_repetitions(variants: list[Variant]) -> list[Variant]:
    kept: list[Variant] = []
    for variant in variants:
        if not any((variant.pipeline, variant.trainer) == (other.pipeline, other.trainer) for other in kept):
            kept.append(variant)
    return kept
