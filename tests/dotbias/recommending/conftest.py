"""Makes runs with models for the tests of lists."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dotbias.recommending import recommend
from tests.trainer.output import test_recommend as exports
from tests.trainer.output.test_recommend import Exported

# Takes the directory of the run, and the kind of the model as `exports.make` does.
Make = Callable[..., Exported]


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes each kind of model once; a run gets a copy of its dataset and of its export."""
    made: dict[str, tuple[Path, Exported]] = {}

    def make(directory: Path, *kind: Any) -> Exported:
        key = repr(kind)
        if key not in made:
            origin = tmp_path_factory.mktemp("made")
            made[key] = origin, exports.make(origin, *kind)
        origin, exported = made[key]
        shutil.copytree(origin, directory, dirs_exist_ok=True)
        return dataclasses.replace(exported, export=directory / "served")

    return make


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes several parts from few users."""
    monkeypatch.setattr(recommend, "BLOCK", 7)
