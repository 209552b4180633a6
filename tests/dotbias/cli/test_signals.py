"""Sends Ctrl-C and SIGTERM at many moments of the real command."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pipeline.preprocessing import contents, write_log

ROOT = Path(__file__).resolve().parents[3]
SAID = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def start(log: Path, directory: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "run_pipeline.py"), "--config", str(ROOT / "configs" / "movielens.yaml")]
    given = ["--input", str(log / "*"), "--output_root", str(directory / "out"), "--run_id", "r"]
    settings = ["--set=pipeline.rows_per_shard=1000", "--set=pipeline.max_rejected_fraction=0.01"]
    # The log level of the tests would show errors of TensorFlow that a user does not see.
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.Popen(
        [*command, *given, *settings, "--stage", "preprocess", *flags],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_ready(process: subprocess.Popen[str]) -> bool:
    """Returns whether the command has installed its handler of SIGTERM; an interpreter has none by default."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (caught,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not is_ready(process):
        time.sleep(0.001)


def end(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Sends the signal; returns the last line and checks that the others are progress, and that the end comes soon."""
    process.send_signal(number)
    sent = time.monotonic()
    _, stderr = process.communicate(timeout=60)
    assert time.monotonic() - sent < 10
    *progress, last = stderr.splitlines()
    assert all(line.startswith("INFO ") for line in progress), stderr
    return last


@pytest.mark.parametrize("number", SAID)
def test_a_signal_during_the_imports(tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "log"
    write_log(log)
    process = start(log, tmp_path)
    wait_until_ready(process)
    said = f"run_pipeline.py: stopped: {SAID[number]}; start the same command again to go on from what is complete"
    assert end(process, number) == said
    assert process.returncode == 128 + number
    assert not (tmp_path / "out").exists()


# Files of the dataset whose appearance is a moment, and seconds after the start.
MOMENTS = [0.5, 1.5, 3.0, "../run.lock", ".tmp/*/tmp", ".tmp/*/rejected/*", ".tmp/*/vocabulary/*"]
MOMENTS += [".tmp/*/transform_fn", ".tmp/*/train/*", "eval/*"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("--direct_running_mode=multi_threading", "--direct_num_workers=2")])
def test_signals_at_ten_moments_of_preprocessing(tmp_path: Path, workers: tuple[str, ...]) -> None:
    log, undisturbed, disturbed = (tmp_path / name for name in ("log", "undisturbed", "disturbed"))
    write_log(log)
    process = start(log, undisturbed)
    assert (process.wait(), (undisturbed / "out/runs/r/run.lock").exists()) == (0, False)
    run, draw, stopped = disturbed / "out" / "runs" / "r", random.Random(5), 0
    for moment in MOMENTS:
        number = draw.choice(list(SAID))
        before = set((run / "dataset").glob(moment)) if isinstance(moment, str) else set()
        process = start(log, disturbed, *workers)
        wait_until_ready(process)
        if isinstance(moment, str):
            while process.poll() is None and not set((run / "dataset").glob(moment)) - before:
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.01))
        else:
            time.sleep(moment)
        last = end(process, number)
        if process.returncode:
            assert process.returncode == 128 + number, moment
            assert last.startswith(f"run_pipeline.py: stopped: {SAID[number]}; ")
            stopped += 1
        assert not (run / "run.lock").exists()
        if (run / "dataset" / "manifest.json").exists():
            # The signal came too late, so the dataset must be complete.
            assert contents(run / "dataset") == contents(undisturbed / "out" / "runs" / "r" / "dataset")
            shutil.rmtree(run / "dataset")
    assert stopped >= 8
    assert start(log, disturbed).wait() == 0
    assert contents(run / "dataset") == contents(undisturbed / "out" / "runs" / "r" / "dataset")
    assert {path.name for path in run.iterdir()} == {"dataset"}
    assert not (run / "dataset" / ".tmp").exists()
