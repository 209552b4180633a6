"""Checks that training, refit, calibration and search read no rows outside of `train` and `eval`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.opened_files import opened_files
from tests.trainer.conftest import SIDES, random_rows, small_config
from tests.trainer.datasets import write_dataset
from trainer.config import TrainerConfig
from trainer.search.tuning import tune
from trainer.train import train

CONFIG = TrainerConfig.model_validate({**small_config().model_dump(), "refit": True, "tune": {"trials": 2}})


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
@pytest.mark.parametrize("run", [train, tune])
def test_only_the_files_of_train_and_eval_are_opened(run: Callable[[str, str, Any], Any], tmp_path: Path) -> None:
    write_dataset(tmp_path / "log", random_rows(550, 1), random_rows(90, 2), SIDES, positive_at=0.5)
    held_out = tmp_path / "log" / "test" / "part-00000-of-00001.csv.gz"
    held_out.parent.mkdir()
    held_out.write_bytes((tmp_path / "log" / "eval" / "part-00000-of-00001.csv.gz").read_bytes())
    with opened_files(tmp_path / "log") as opened:
        run(str(tmp_path / "log"), str(tmp_path / "out"), CONFIG)
        names = {str(path.relative_to(tmp_path / "log")) for path in opened()}
        shards = {name for name in names if name.endswith(".csv.gz")}
        # All files of both splits are opened, so the test would see other files too.
        assert shards == {
            str(path.relative_to(tmp_path / "log"))
            for split in ("train", "eval")
            for path in (tmp_path / "log" / split).iterdir()
        }
        assert names - shards <= {"manifest.json"} | {f"vocabulary/{name}.txt" for name in SIDES} | {
            f"vocabulary/{name}.counts.txt" for name in SIDES
        }
        # Reading held-out rows would have been noticed.
        held_out.read_bytes()
        assert held_out in opened()
