"""Checks that nights that are killed, started twice or made late have the same results as undisturbed ones."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.dotbias.retraining.test_retrain import CONFIG, command, done, make_log, night, read

DATES = [f"2026-01-{day:02}" for day in range(7, 17)]
# Made when later nights have decided.
LATE = "2026-01-11"
KILLED = ("2026-01-07", "2026-01-08", "2026-01-10", "2026-01-13", "2026-01-15")
TWICE = ("2026-01-09", "2026-01-14")


def make_directory(directory: Path) -> None:
    make_log(directory, 16)
    config = {**CONFIG, "trainer": {**CONFIG["trainer"], "deterministic": True}}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))


def order() -> list[str]:
    return [*(date for date in DATES if date != LATE), LATE]


def killed_night(directory: Path, date: str, seconds: float) -> bool:
    """Starts a night and kills it after so many seconds; returns whether it was still running."""
    process = subprocess.Popen(night(directory, date), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True


def two_nights_at_once(directory: Path, date: str) -> list[int]:
    """Starts a night twice; returns the exit codes. The second finds it locked or decided."""
    processes = [
        subprocess.Popen(night(directory, date), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)
    ]
    return sorted(process.wait() for process in processes)


def contents(root: Path) -> dict[str, bytes]:
    """Returns all files that must be equal: datasets, weights and vocabularies of exports, decisions, champion."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        is_data = "/dataset/" in name and not name.endswith("manifest.json") and "transform" not in name
        is_export = "/export/" in name or name.startswith("serving/")
        is_export &= "/variables/variables.data" in name or "/assets/" in name
        if path.is_file() and (is_data or is_export or name.endswith(("decision.json", "plan.json", "champion.json"))):
            found[name] = path.read_bytes()
        if name.endswith("/decision.json"):
            decision = json.loads(found[name])
            # The fingerprint of a training covers the paths of the log, which lies in another directory.
            for key in ("from", "model_dir"):
                decision["warm_start"].pop(key, None)
            found[name] = json.dumps(decision).encode()
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_same_champions_datasets_and_exports(tmp_path: Path) -> None:
    quiet, disturbed = tmp_path / "quiet", tmp_path / "disturbed"
    make_directory(quiet)
    seconds = {}
    for date in order():
        began = time.monotonic()
        done(night(quiet, date))
        seconds[date] = time.monotonic() - began
    (tmp_path / "log").mkdir()
    make_directory(disturbed)
    moments = random.Random(0)
    kills = 0
    for date in order():
        if date in KILLED:
            # Not before the imports are done, nor after the decision.
            kills += killed_night(disturbed, date, seconds[date] * moments.uniform(0.3, 0.95))
        if date in TWICE:
            assert two_nights_at_once(disturbed, date)[0] == 0
        done(night(disturbed, date))
    assert kills >= 4
    late = json.loads((disturbed / "out" / "runs" / LATE / "decision.json").read_text())
    assert late["outcome"] == "kept"
    assert late["champion"] == max(
        date for date in DATES if date < LATE and read(quiet, f"runs/{date}/decision.json")["outcome"] == "promoted"
    )
    expected = contents(quiet / "out")
    found = contents(disturbed / "out")
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert len([name for name in expected if name.endswith("decision.json")]) == len(DATES)
    history = done(command(disturbed, "history"))
    assert all(date in history for date in DATES)
