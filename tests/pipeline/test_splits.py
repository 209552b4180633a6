from __future__ import annotations

import numpy as np
import pytest

from pipeline.config import SplitConfig
from pipeline.splits import is_eval

ROWS = 100_000


def draw(fraction: float = 0.1, seed: int = 1, file: int = 0, offset: int = 0) -> np.ndarray[tuple[int], np.dtype]:
    return is_eval(SplitConfig(eval_fraction=fraction), seed, file, offset, ROWS)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.99])
def test_fraction(fraction: float) -> None:
    share = draw(fraction).mean()
    assert share == pytest.approx(fraction, abs=5 * np.sqrt(fraction * (1 - fraction) / ROWS))


def test_the_same_place_gives_the_same_split() -> None:
    np.testing.assert_array_equal(draw(), draw())


@pytest.mark.parametrize("other", [{"seed": 2}, {"file": 1}, {"offset": 1}, {"offset": 8 << 20}])
def test_another_place_or_seed_gives_an_independent_split(other: dict[str, int]) -> None:
    both = (draw() & draw(**other)).mean()
    assert both == pytest.approx(0.01, abs=0.002)


def test_no_rows() -> None:
    assert is_eval(SplitConfig(), 1, 0, 0, 0).shape == (0,)
