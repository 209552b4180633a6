from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.config import LabelConfig
from pipeline.input.labels import make_labels, positive_at

AS_IT_IS = LabelConfig(column="rating")
HARD = LabelConfig(column="rating", threshold=4.0)
SOFT = LabelConfig(column="rating", scale=(0.5, 5.0))
BLENDED = LabelConfig(column="rating", threshold=4.0, scale=(0.5, 5.0), soft_weight=0.8)
HALF_STARS = np.arange(0.5, 5.5, 0.5, dtype=np.float32)
BAD = math.nan


@pytest.mark.parametrize(
    ("config", "values", "labels"),
    [
        (AS_IT_IS, [0, 0.25, 1, -0.1, 1.1, math.inf], [0, 0.25, 1, -0.1, 1.1, math.inf]),
        (HARD, [0.5, 3.5, 4, 5, -7, 1e30], [0, 0, 1, 1, 0, 1]),
        (HARD, [math.nan, math.inf, -math.inf], [BAD, BAD, BAD]),
        (SOFT, [0.5, 2.75, 5], [0, 0.5, 1]),
        (SOFT, [0, 5.5], [-0.5 / 4.5, 5 / 4.5]),
        (BLENDED, [0.5, 2.75, 3.5, 4, 5], [0, 0.4, 0.8 * 3 / 4.5, 0.8 * 3.5 / 4.5 + 0.2, 1]),
        # 0.8 * soft of these would be in [0, 1].
        (BLENDED, [0.4, 5.5, math.nan, math.inf, 3e38], [BAD, BAD, BAD, BAD, BAD]),
    ],
)
def test_labels(config: LabelConfig, values: list[float], labels: list[float]) -> None:
    np.testing.assert_allclose(make_labels(np.array(values, np.float32), config), labels, rtol=1e-6)


def test_labels_of_integers() -> None:
    assert make_labels(np.array([0, 1, 2]), AS_IT_IS).dtype == np.float32
    assert make_labels(np.array([3, 4, 2**62]), HARD).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("config", "at"), [(AS_IT_IS, 0.5), (SOFT, 0.5), (HARD, 1.0), (BLENDED, 0.8 * 3.5 / 4.5 + 0.1)]
)
def test_positive_at(config: LabelConfig, at: float) -> None:
    assert positive_at(config) == pytest.approx(at, rel=1e-6)


@given(st.sampled_from(HALF_STARS.tolist()), st.floats(0, 1))
def test_positive_at_separates_half_stars_exactly(threshold: float, soft_weight: float) -> None:
    config = LabelConfig(column="rating", threshold=threshold, scale=(0.5, 5.0), soft_weight=soft_weight)
    check_separation(HALF_STARS, config)


_float32 = st.floats(-1e6, 1e6, width=32)


@given(
    scale=st.tuples(_float32, _float32).filter(lambda scale: scale[0] < scale[1]),
    at=st.floats(0, 1),
    soft_weight=st.floats(0, 1),
    values=st.lists(st.floats(0, 1), min_size=1),
)
def test_positive_at_separates_any_values(
    scale: tuple[float, float], at: float, soft_weight: float, values: list[float]
) -> None:
    """Holds as far as float32 allows: where the hard part is large enough beside the soft one."""
    low, high = scale
    threshold = np.float32(low + at * (high - low))
    assume(low <= threshold <= high)
    config = LabelConfig(column="rating", threshold=float(threshold), scale=scale, soft_weight=soft_weight)
    numbers = (low + np.array(values) * (high - low)).astype(np.float32)
    numbers = np.clip([*numbers, threshold, np.nextafter(threshold, np.float32(-np.inf)), low, high], low, high)
    labels = make_labels(numbers, config)
    assert ((labels >= 0) & (labels <= 1)).all()
    assert labels[-1] == 1
    if soft_weight < 1 - 1e-6:
        check_separation(numbers, config)


def check_separation(values: np.ndarray[tuple[int], np.dtype[np.float32]], config: LabelConfig) -> None:
    labels = make_labels(values, config)
    assert config.threshold is not None
    expected = (values >= np.float32(config.threshold)).tolist()
    # As the pipeline compares, in float32, and as a reader of the manifest may, in float64.
    assert (labels >= np.float32(positive_at(config))).tolist() == expected
    assert (labels.astype(np.float64) >= positive_at(config)).tolist() == expected
