from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

import pipeline.sample.generator
from dotbias.cli.console.progress import ProgressDisplay
from dotbias.cli.steps.sample_data import sample_data
from pipeline.config import SampleConfig

CONFIG = SampleConfig(rows=200, test_rows=50, users=20, items=10)


def test_runs_at_the_same_time_do_not_write_each_others_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one generates, another one is done and reads its files."""
    write_sample, progress = pipeline.sample.generator.write_sample, ProgressDisplay(io.StringIO())
    faster: list[tuple[Path, int]] = []

    def slow(*arguments: Any) -> Any:
        if not faster:
            monkeypatch.setattr(pipeline.sample.generator, "write_sample", write_sample)
            train = Path(sample_data(str(tmp_path), CONFIG, progress).train)
            faster.append((train, train.stat().st_ino))
        return write_sample(*arguments)

    monkeypatch.setattr(pipeline.sample.generator, "write_sample", slow)
    made = sample_data(str(tmp_path), CONFIG, progress)
    ((train, inode),) = faster
    assert (Path(made.train), train.stat().st_ino) == (train, inode)
    assert [path.name for path in (tmp_path / "sample").iterdir()] == [train.parent.name]
    # Files without their description are not whole.
    (train.parent / "sample.json").unlink()
    assert sample_data(str(tmp_path), CONFIG, progress) == made
    assert train.stat().st_ino != inode
