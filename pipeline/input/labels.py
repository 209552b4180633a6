"""Makes labels in [0, 1] from the values of a column."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.config import LabelConfig


def make_labels(values: npt.NDArray[np.float32], config: LabelConfig) -> npt.NDArray[np.float32]:
    """Makes a label for each of `values` `[rows]`; the caller rejects rows whose label is outside [0, 1] or NaN.

    With a threshold t and a scale [low, high] the label is `w * (value - low) / (high - low) + (1 - w) * (value >= t)`.
    """
    values = values.astype(np.float32)
    # Values far outside the scale overflow; their rows are rejected.
    with np.errstate(over="ignore", invalid="ignore"):
        return _labels(values, config)


def _labels(values: npt.NDArray[np.float32], config: LabelConfig) -> npt.NDArray[np.float32]:
    if config.scale is None and config.threshold is None:
        return values
    if config.scale is None:
        hard = (values >= np.float32(config.threshold)).astype(np.float32)
        return np.where(np.isfinite(values), hard, np.float32(np.nan))
    low, high = np.float32(config.scale[0]), np.float32(config.scale[1])
    soft = (values - low) / (high - low)
    if config.threshold is None:
        return soft
    weight = np.float32(config.soft_weight)
    hard = values >= np.float32(config.threshold)
    blended = weight * soft + (np.float32(1) - weight) * hard
    # Blending could move a value outside the scale back into [0, 1].
    return np.where((soft >= 0) & (soft <= 1), blended, np.float32(np.nan))


def positive_at(config: LabelConfig) -> float:
    """Returns the least label of a positive row.

    With a threshold it is half-way between the labels just below and at the threshold, so rounding does not move a row
    across it. Without one it is 0.5.
    """
    if config.threshold is None or config.scale is None:
        return 0.5 if config.threshold is None else 1.0
    at = np.float32(config.threshold)
    below = np.nextafter(at, np.float32(-np.inf))
    # No row has a value below the scale.
    labels = make_labels(np.array([max(below, np.float32(config.scale[0])), at], np.float32), config)
    return float(labels.astype(np.float64).mean()) if labels[0] < labels[1] else float(labels[1])
