"""Which split a row belongs to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.config import SplitConfig
from pipeline.randomness import Purpose, generator


def is_eval(config: SplitConfig, seed: int, file: int, offset: int, rows: int) -> npt.NDArray[np.bool_]:
    """`[rows]`, True where a row is of the eval split; the batch begins at `offset` of the input file number `file`."""
    return generator(seed, Purpose.SPLIT, file, offset).random(rows) < config.eval_fraction
