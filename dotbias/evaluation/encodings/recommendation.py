"""Recommends an encoding: the smallest that is not shown to be worse than the best."""

from __future__ import annotations

from typing import NamedTuple

from dotbias.evaluation.encodings.comparison import Comparison, MeasuredVariant
from dotbias.evaluation.encodings.tables import mebibytes
from dotbias.evaluation.results import Estimate

# Another configuration is recommended only if it saves more than this share of the export.
_WORTH_A_CHANGE = 0.1
_METRICS = {"auc": "AUC", "log-loss": "log loss"}


class Recommendation(NamedTuple):
    """Holds the `name` of the recommended variant, and the reasons as sentences."""

    name: str
    reasons: list[str]


def recommend(comparison: Comparison) -> Recommendation:
    """Recommends the variant with the smallest export among those that are not worse than the best.

    A variant is worse if the interval of its difference to the best excludes 0, in AUC or in log loss, unless another
    seed of the same configuration changed that metric as much. The usual rule is the simplest model within one standard
    error of the best (L. Breiman et al., "Classification and Regression Trees", 1984); here it is two standard errors
    of a paired difference. The configured encoding stays unless at least a tenth of the export can be saved.
    """
    variants = {v.name: v for v in comparison.variants if v.kind != "reseeded"}
    best, configured = variants[comparison.best], comparison.variants[0]
    noise = seed_noise(comparison)
    equals = [v for v in variants.values() if v is best or not _is_worse(comparison, v, noise)]
    chosen = min(equals, key=lambda variant: variant.served_bytes)
    if configured in equals and chosen.served_bytes > (1 - _WORTH_A_CHANGE) * configured.served_bytes:
        chosen = configured
    return Recommendation(chosen.name, _reasons(comparison, chosen, best, equals, noise))


def seed_noise(comparison: Comparison) -> dict[str, float]:
    """Returns by metric how much another seed of the trainer changed it; 0 where that was not tried."""
    for variant in comparison.variants:
        if variant.kind == "reseeded":
            scores = comparison.scores[variant.name]
            return {"auc": abs(scores.auc_gain.value or 0.0), "log-loss": abs(scores.log_loss_gain.value or 0.0)}
    return {"auc": 0.0, "log-loss": 0.0}


def _is_worse(comparison: Comparison, variant: MeasuredVariant, noise: dict[str, float]) -> bool:
    # With too few users there is no interval, and the value alone decides.
    return any(
        estimate.value is not None and estimate.value > noise[metric] and (estimate.low is None or estimate.low > 0)
        for metric, estimate in comparison.behind[variant.name].items()
    )


def _reasons(
    comparison: Comparison,
    chosen: MeasuredVariant,
    best: MeasuredVariant,
    equals: list[MeasuredVariant],
    noise: dict[str, float],
) -> list[str]:
    configured = comparison.variants[0]
    reasons = []
    if chosen is best:
        reasons.append(
            f"No variant has a better {_METRICS[comparison.monitor]}, and no variant as good is smaller by a tenth."
        )
    else:
        behind = comparison.behind[chosen.name]
        lost = " and ".join(f"{_with_interval(estimate)} in {_METRICS[metric]}" for metric, estimate in behind.items())
        reasons.append(
            f"The best variant, {best.title}, is better by {lost}, which chance explains. Its export takes "
            f"{mebibytes(best.served_bytes)} MiB instead of {mebibytes(chosen.served_bytes)} MiB."
        )
    worse = [v for v in comparison.variants if v.kind != "reseeded" and v not in equals]
    if worse:
        reasons.append(f"Worse by more than chance: {'; '.join(variant.title for variant in worse)}.")
    if any(noise.values()):
        reasons.append(
            f"Another seed of the same configuration changed AUC by {noise['auc']:.4f} and log loss by "
            f"{noise['log-loss']:.4f}. Smaller differences mean nothing."
        )
    if chosen is not configured:
        reasons += _what_it_costs(comparison, chosen)
    return reasons


def _what_it_costs(comparison: Comparison, chosen: MeasuredVariant) -> list[str]:
    """Names the slices where the choice is worse than the configured encoding, which the mean can hide."""
    costs = []
    for slice_ in comparison.slices:
        gain = slice_.scores[chosen.name].log_loss_gain
        if gain.high is not None and gain.high < 0:
            costs.append(f"{slice_.kind} of {slice_.value} train rows ({slice_.rows:,} rows, {-(gain.value or 0):.4f})")
    if not costs:
        return []
    return [f"Compared with the configured encoding, log loss is higher on rows with {'; '.join(costs)}."]


def _with_interval(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "an unknown amount" if estimate.value is None else f"{estimate.value:.4f}"
    return f"{estimate.value:.4f} ({estimate.low:.4f} to {estimate.high:.4f})"
