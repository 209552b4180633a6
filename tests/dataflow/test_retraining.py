"""Runs nights on gs://, against an emulator of Cloud Storage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.sample.drift import DriftConfig, write_days
from tests.dataflow.command import ROOT
from tests.dataflow.storage import Storage
from tests.dotbias.retraining.test_retrain import CONFIG

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
FIRST, SECOND = "2026-01-07", "2026-01-08"


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "run_pipeline.py"), *arguments, "--output_root", "gs://bucket/nights"]


def retrain(date: str) -> list[str]:
    config, log = "gs://bucket/nights/config.yaml", "gs://bucket/nights/log/*.csv"
    return command("retrain", "--date", date, "--config", config, "--input", log)


def done(bucket: Storage, line: list[str]) -> str:
    ran = subprocess.run(line, capture_output=True, text=True, env=bucket.environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def read(bucket: Storage, name: str) -> dict:  # type: ignore[type-arg]
    return json.loads(bucket.read(f"nights/{name}"))


def test_two_nights_one_of_them_twice_at_once_and_a_rollback(bucket: Storage, tmp_path: Path) -> None:
    for day in write_days(DriftConfig(days=8, rows=1500, users=150, items=60), str(tmp_path)):
        bucket.write(f"nights/log/{day.date}.csv", Path(day.path).read_bytes())
    bucket.write("nights/config.yaml", yaml.safe_dump(CONFIG).encode())
    assert "promoted" in done(bucket, retrain(FIRST))
    both = [
        subprocess.Popen(
            retrain(SECOND), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=bucket.environment
        )
        for _ in range(2)
    ]
    ended = [(*process.communicate(), process.returncode) for process in both]
    codes = sorted(code for _, _, code in ended)
    # The other one finds the run locked, or decided.
    assert codes in ([0, 0], [0, 1]), ended
    assert all("Traceback" not in stderr for _, stderr, _ in ended)
    decision, champion = read(bucket, f"runs/{SECOND}/decision.json"), read(bucket, "champion.json")
    assert decision["champion"] == FIRST
    assert champion["run_id"] == (SECOND if decision["outcome"] == "promoted" else FIRST)
    version = champion["version"]
    assert f"nights/serving/{version}/saved_model.pb" in bucket.names("nights/serving/")
    if decision["outcome"] == "promoted":
        assert champion["previous"]["run_id"] == FIRST
        assert "Serving     2026-01-07" in done(bucket, command("rollback"))
    back = read(bucket, "champion.json")
    assert back["run_id"] == FIRST
    names = bucket.names(f"nights/serving/{back['version']}/")
    assert any(name.endswith("saved_model.pb") for name in names)
    # Each file of the log was counted once.
    assert len([name for name in bucket.names("nights/counts/") if name.endswith("/entry.json")]) == 8
    assert SECOND in done(bucket, command("history"))
    assert not [name for name in bucket.names("nights/") if name.endswith(".lock")]
