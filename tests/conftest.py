"""Configures all tests, and finds the public data set that some of them use."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# TensorFlow says on stderr which instructions it was not built for.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# The tests' own process leaves the memory of a GPU to the trainings that it starts.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

# The same examples in every run; a slow machine is no failure.
hypothesis.settings.register_profile("dotbias", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("dotbias")


@pytest.fixture(scope="session")
def movielens() -> Path:
    """Returns the ratings.csv of ml-latest-small: $DOTBIAS_MOVIELENS, or one in a directory beside the repository."""
    named = os.environ.get("DOTBIAS_MOVIELENS")
    beside = Path(__file__).resolve().parents[2].glob("*/data/ml-latest-small/ratings.csv")
    for path in [Path(named)] if named else sorted(beside):
        return path
    pytest.skip("ml-latest-small is not here; name its ratings.csv in DOTBIAS_MOVIELENS")
