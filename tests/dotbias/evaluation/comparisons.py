"""Comparisons made of a few numbers."""

from __future__ import annotations

from typing import Any

from dotbias.evaluation.encodings.comparison import Comparison, FeatureEncoding, MeasuredVariant, Scores, SliceScores
from dotbias.evaluation.results import Estimate


def variant(
    name: str, kind: Any = "vocabulary", served_bytes: int = 100 << 20, colliding: float = 0.5
) -> MeasuredVariant:
    hashed = kind == "hashing"
    encoding = FeatureEncoding(
        distinct_ids=100,
        table_rows=50,
        colliding_ids=colliding,
        expected_colliding_ids=0.49 if hashed else None,
        colliding_rows=0.4,
        oov_rows=None if hashed else {"train": 0.1, "eval": 0.123},
    )
    return MeasuredVariant(
        name=name,
        title=f"the {name}",
        kind=kind,
        fingerprint="0",
        features={"userId": encoding, "movieId": encoding},
        table_bytes=served_bytes,
        slot_bytes=2 * served_bytes,
        served_bytes=served_bytes,
        preprocess_seconds=12.34,
        train_seconds=56.78,
        epochs=9,
        best_epoch=6,
    )


def around(value: float, half: float) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


def scores(gain: float, half: float) -> Scores:
    """Makes scores with a gain over an AUC of .8, and half of that gain in log loss."""
    return Scores(
        auc=around(0.8 + gain, 0.01),
        log_loss=around(0.5 - gain / 2, 0.01),
        auc_gain=around(gain, half),
        log_loss_gain=around(gain / 2, half),
    )


def comparison(
    variants: list[MeasuredVariant], gains: list[float], half: float = 0.001, cold_gains: list[float] | None = None
) -> Comparison:
    """Makes a comparison with `gains` of AUC over the first variant; intervals reach `half` to each side."""
    names = [v.name for v in variants]
    contenders = [(gain, v.name) for gain, v in zip(gains, variants, strict=True) if v.kind != "reseeded"]
    best_gain, best = max(contenders, key=lambda pair: pair[0])
    by_slice = {"0 (cold)": cold_gains or gains, "1,000 or more": gains}
    return Comparison(
        variants=variants,
        rows={"train": 9000, "eval": 1000},
        users=77,
        resamples=200,
        scores={name: scores(gain, half) for name, gain in zip(names, gains, strict=True)},
        monitor="auc",
        best=best,
        behind={
            name: {"auc": around(best_gain - gain, half), "log-loss": around((best_gain - gain) / 2, half)}
            for name, gain in zip(names, gains, strict=True)
        },
        slices=[
            SliceScores(
                kind=kind,
                value=value,
                rows=500,
                scores={name: scores(gain, half) for name, gain in zip(names, slice_gains, strict=True)},
            )
            for kind in ("userId", "movieId")
            for value, slice_gains in by_slice.items()
        ],
    )
