"""Checks that the smallest variant that is not worse than the best is recommended, with its reasons."""

from __future__ import annotations

import pytest

from dotbias.evaluation.encodings.recommendation import recommend
from dotbias.evaluation.results import Estimate
from tests.dotbias.evaluation.comparisons import comparison, variant

MIB = 1 << 20


@pytest.mark.parametrize(
    ("configured", "others", "chosen"),
    [
        # (MiB) and by name (MiB, gain of AUC, half the interval .001)
        (100, {"small": (50, -0.0005)}, "small"),
        (100, {"small": (50, -0.005)}, "configured"),
        # What is worse only in log loss is worse; half of the gain in AUC is .0011 there.
        (100, {"small": (50, -0.0022)}, "configured"),
        # Less than a tenth saved does not justify a change.
        (100, {"small": (91, -0.0005)}, "configured"),
        (100, {"small": (89, -0.0005)}, "small"),
        # A larger variant that is better is recommended.
        (100, {"large": (900, 0.01)}, "large"),
        (100, {"large": (900, 0.0005)}, "configured"),
        (100, {"large": (900, 0.01), "middle": (300, 0.0095)}, "middle"),
        # The smallest of several.
        (100, {"small": (50, 0.0), "smaller": (20, -0.0009), "smallest": (10, -0.1)}, "smaller"),
    ],
)
def test_the_choice(configured: int, others: dict[str, tuple[int, float]], chosen: str) -> None:
    variants = [variant("configured", "configured", configured * MIB)]
    variants += [variant(name, served_bytes=size * MIB) for name, (size, _) in others.items()]
    assert recommend(comparison(variants, [0.0, *(gain for _, gain in others.values())])).name == chosen


def test_what_another_seed_moves_as_much_is_not_worse() -> None:
    variants = [variant("configured", "configured"), variant("small", served_bytes=MIB)]
    assert recommend(comparison(variants, [0.0, -0.005])).name == "configured"
    variants.append(variant("reseeded", "reseeded"))
    assert recommend(comparison(variants, [0.0, -0.005, -0.006])).name == "small"
    # The reseeded variant may be better or worse, and is never recommended itself.
    assert recommend(comparison(variants, [0.0, -0.005, 0.006])).name == "small"


def test_without_intervals_the_values_decide() -> None:
    variants = [variant("configured", "configured"), variant("small", served_bytes=MIB)]
    given = comparison(variants, [0.0, -0.0005])
    of_few_users = {
        name: {metric: Estimate(value=estimate.value) for metric, estimate in behind.items()}
        for name, behind in given.behind.items()
    }
    assert recommend(given).name == "small"
    assert recommend(given.model_copy(update={"behind": of_few_users})).name == "configured"


def test_the_reasons_name_what_was_compared() -> None:
    variants = [
        variant("configured", "configured", 100 * MIB),
        variant("reseeded", "reseeded"),
        variant("small", "hashing", 50 * MIB),
        variant("tiny", "hashing", 5 * MIB),
    ]
    name, reasons = recommend(comparison(variants, [0.0, 0.0007, -0.0004, -0.2], cold_gains=[0, 0, -0.02, -0.3]))
    assert name == "small"
    text = " ".join(reasons)
    for part in (
        "The best variant, the configured, is better by 0.0004 (-0.0006 to 0.0014) in AUC",
        "Its export takes 100.0 MiB instead of 50.0 MiB.",
        "Worse by more than chance: the tiny.",
        "Another seed of the same configuration changed AUC by 0.0007",
        "userId of 0 (cold) train rows (500 rows, 0.0100)",
    ):
        assert part in text
    # Slices that are not worse beyond chance are not mentioned.
    assert "1,000 or more" not in text
