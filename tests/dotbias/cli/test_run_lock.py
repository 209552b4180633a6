"""Starts the real command twice at once, and in places that cannot be written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dotbias.cli.failures import UsageError
from dotbias.cli.run_lock import locked_run
from pipeline.manifest import DotbiasError, read_manifest
from tests.pipeline.preprocessing import write_log

ROOT = Path(__file__).resolve().parents[3]


def start(directory: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "run_pipeline.py"), "--config", str(ROOT / "configs" / "movielens.yaml")]
    given = ["--input", "log/*", "--run_id", "r", "--set=pipeline.max_rejected_fraction=0.01"]
    return subprocess.Popen(
        [*command, *given, *flags], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def refusal(process: subprocess.Popen[str]) -> str:
    said = r"run_pipeline\.py: error: run out/runs/r is being written by process {} on \S+, since [-\d]+ [:\d]+ UTC\. "
    return said.format(process.pid) + r"Wait until it ends, or choose another --run_id\.\n"


def start_a_second(first: subprocess.Popen[str], directory: Path, *flags: str) -> None:
    """Starts while the first has the lock; the first ends as if nothing had happened."""
    while first.poll() is None and not (directory / "out/runs/r/run.lock").exists():
        time.sleep(0.01)
    second = start(directory, *flags)
    _, stderr = second.communicate()
    assert second.returncode == 1
    assert re.fullmatch(refusal(first), stderr), stderr
    _, stderr = first.communicate()
    assert first.returncode == 0, stderr
    assert not (directory / "out/runs/r/run.lock").exists()


@pytest.mark.slow
def test_two_preprocessings_of_one_run(tmp_path: Path) -> None:
    write_log(tmp_path / "log")
    flags = ("--stage", "preprocess")
    start_a_second(start(tmp_path, *flags), tmp_path, *flags)
    dataset = tmp_path / "out/runs/r/dataset"
    shards = [shard for split in read_manifest(str(dataset)).splits.values() for shard in split.shards]
    assert {shard.path: shard.bytes for shard in shards} == {
        str(path.relative_to(dataset)): path.stat().st_size for path in dataset.glob("*/part-*.csv.gz")
    }


@pytest.mark.slow
def test_two_trainings_of_one_run(tmp_path: Path) -> None:
    write_log(tmp_path / "log")
    made = start(tmp_path, "--stage", "preprocess")
    made.communicate()
    assert made.returncode == 0
    flags = ("--stage", "train", "--set=trainer.epochs=2", "--set=trainer.embedding_dim=4")
    start_a_second(start(tmp_path, *flags), tmp_path, *flags)
    assert (tmp_path / "out/runs/r/model/metrics.json").exists()


@pytest.mark.parametrize("stage", ["preprocess", "all"])
def test_a_file_in_the_way_of_the_output(tmp_path: Path, stage: str) -> None:
    write_log(tmp_path / "log")
    (tmp_path / "out").write_text("a file")
    done = start(tmp_path, "--stage", stage)
    _, stderr = done.communicate()
    assert stderr == "run_pipeline.py: error: --output_root: out/runs/r cannot be written: Not a directory.\n"
    assert done.returncode == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with (
        pytest.raises(UsageError, match=r"--output_root: .*cannot be written: Permission denied"),
        locked_run(str(tmp_path / "runs" / "r")),
    ):
        pass


def test_a_device_that_takes_no_files() -> None:
    with pytest.raises(UsageError, match=r"--output_root: /proc/runs/r cannot be written"), locked_run("/proc/runs/r"):
        pass


def test_of_several_workers_the_chief_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def worker(index: int) -> None:
        cluster = '{"worker": ["localhost:1", "localhost:2"]}'
        monkeypatch.setenv("TF_CONFIG", f'{{"cluster": {cluster}, "task": {{"type": "worker", "index": {index}}}}}')

    worker(0)
    with locked_run(str(tmp_path / "r")):
        with pytest.raises(DotbiasError, match="is being written"), locked_run(str(tmp_path / "r")):
            pass
        worker(1)
        with locked_run(str(tmp_path / "r")):
            pass
        assert (tmp_path / "r" / "run.lock").exists()
    # Nothing was written, so nothing is left.
    assert not (tmp_path / "r").exists()
