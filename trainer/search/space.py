"""Says which options a search varies, and how far at a time."""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from trainer.config import TrainerConfig, set_dotted

# A trial divides an option by at most this, or multiplies it. The options are those whose best values differ most
# between logs. More units hardly ever change quality, since L2 shrinks those that the log does not need.
_OF_LABELS = {"l2": 2.0, "bias_l2_factor": 2.0}
_OF_LISTS = {"softmax.temperature": 1.5, "softmax.candidates": 2.0, "optimizer.learning_rate": 2.0}


def varied(config: TrainerConfig, *, finds_items: bool = False) -> dict[str, Any]:
    """Return the values of the options that are varied, by dotted key; an option of 0 stays.

    Args:
        config: with automatic values filled in.
        finds_items: whether the objective is `softmax`.
    """
    values: dict[str, Any] = {}
    for key in _OF_LISTS if finds_items else _OF_LABELS:
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        if value:
            values[key] = value
    return values


def search_space(center: dict[str, Any], reach: float) -> dict[str, BaseDistribution]:
    """Return the values of each option around those of `center`; `reach` is the share of the farthest step, in logs."""
    space: dict[str, BaseDistribution] = {}
    for key, value in center.items():
        step = (_OF_LABELS | _OF_LISTS)[key] ** reach
        if isinstance(value, int):
            space[key] = IntDistribution(max(round(value / step), 1), round(value * step), log=True)
        else:
            space[key] = FloatDistribution(value / step, value * step, log=True)
    return space


def with_values(config: TrainerConfig, values: dict[str, Any]) -> TrainerConfig:
    """Return a configuration with other values, by dotted key."""
    changed = config.model_dump()
    for key, value in values.items():
        set_dotted(changed, key, value)
    return TrainerConfig.model_validate(changed)
