"""Trains the model that the tests of warm starts go on from."""

from __future__ import annotations

import pytest

from tests.trainer.loop.warm_starts import Trained, config_of, trained


@pytest.fixture(scope="session")
def former(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("former"), config_of(refit=True))
