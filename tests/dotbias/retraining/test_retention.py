"""Tests which files of old runs are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from dotbias.retraining.config import KeepConfig
from dotbias.retraining.retention import Deletions, delete, plan_deletions

RUNS = [f"2026-11-{day:02}" for day in range(1, 11)]


def test_the_last_runs_and_those_that_are_needed_stay() -> None:
    versions = {2026110100: "2026-11-01", 2026110200: "2026-11-02", 2026110900: "2026-11-09", 7: None}
    # A version of the rollback to the first run; nothing else has its number.
    versions[2026110501] = "2026-11-01"
    needed, keep = {"2026-11-02", "2026-11-05"}, KeepConfig(shards=2, exports=7)
    found = plan_deletions(RUNS, needed, versions, 2026110901, keep)
    assert found.shards == ["2026-11-01", *RUNS[2:4], *RUNS[5:8]]
    assert found.models == ["2026-11-01", "2026-11-03"]
    assert found.versions == [2026110100, 2026110501]


def test_a_version_above_the_champion_was_left_by_a_command_that_was_killed() -> None:
    versions = {2026111000: "2026-11-10", 2026110900: "2026-11-09", 2026111001: None}
    found = plan_deletions(RUNS, {"2026-11-09"}, versions, 2026110901, KeepConfig(shards=2, exports=7))
    assert found.versions == [2026111000]


@pytest.mark.parametrize("runs", [[], RUNS[:1], RUNS[:2]])
def test_few_runs_all_stay(runs: list[str]) -> None:
    assert plan_deletions(runs, set(), {}, 0, KeepConfig(shards=2, exports=7)) == Deletions([], [], [])


def test_what_is_deleted_and_what_stays(tmp_path: Path) -> None:
    for name in ("dataset/train/a", "dataset/eval/a", "dataset/vocabulary/a", "model/export/a", "model/metrics.json"):
        (tmp_path / "runs/2026-11-01" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs/2026-11-01" / name).write_text("")
    (tmp_path / "serving/2026110100").mkdir(parents=True)
    delete(str(tmp_path), Deletions(["2026-11-01"], ["2026-11-01"], [2026110100]))
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["runs/2026-11-01/dataset/vocabulary/a", "runs/2026-11-01/model/metrics.json"]
    assert list((tmp_path / "serving").iterdir()) == []


def test_what_cannot_be_deleted_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "serving").mkdir()
    # A file in place of a directory.
    (tmp_path / "serving/1").write_text("")
    delete(str(tmp_path), Deletions([], [], [1]))
    assert "An old directory stays" in caplog.text
