"""Runs a night in two parts, as deploy/schedule.yaml does: Dataflow makes the dataset, a command does the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.sample.drift import DriftConfig, write_days
from tests.dataflow.command import ROOT, on_dataflow
from tests.dataflow.service import Service
from tests.dataflow.storage import Storage
from tests.dataflow.workers import install, make_worker, replay
from tests.dotbias.retraining.test_retrain import CONFIG

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
DATE = "2026-01-07"


def night(bucket: Storage, root: str, *flags: str) -> str:
    line = [sys.executable, str(ROOT / "run_pipeline.py"), "retrain", "--date", DATE]
    places = ["--config", "gs://bucket/night/config.yaml", "--input", "gs://bucket/night/log/*"]
    done = subprocess.run(
        [*line, *places, "--output_root", f"gs://bucket/{root}", *flags],
        env=bucket.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_night_whose_dataset_dataflow_makes(bucket: Storage, service: Service, tmp_path: Path) -> None:
    for day in write_days(DriftConfig(days=6, rows=1500, users=150, items=60), str(tmp_path / "log")):
        bucket.write(f"night/log/{day.date}.csv", Path(day.path).read_bytes())
    bucket.write("night/config.yaml", yaml.safe_dump(CONFIG).encode())
    dataset = f"runs/{DATE}/dataset/"

    night(bucket, "two_parts", "--only", "preprocess", "--no_wait_until_finish", *on_dataflow(service))
    assert len(service.jobs) == 1
    assert "manifest.json" not in bucket.contents(f"two_parts/{dataset}")
    staged = {name.rpartition("/")[2]: name for name in bucket.names(f"tmp/dotbias-{DATE}")}
    for name in ("pipeline.pb", "workflow.tar.gz"):
        (tmp_path / name).write_bytes(bucket.read(staged[name]))
    python = make_worker(tmp_path / "worker")
    install(python, tmp_path / "workflow.tar.gz")
    ran = replay(tmp_path / "pipeline.pb", python, bucket.environment)
    assert ran.returncode == 0, ran.stderr[-5000:]

    said = night(bucket, "two_parts")
    assert "promoted" in said
    night(bucket, "one_part")
    ours, usual = (
        {
            name: data
            for name, data in bucket.contents(f"{root}/{dataset}").items()
            if name.startswith(("train/", "eval/", "vocabulary/"))
        }
        for root in ("two_parts", "one_part")
    )
    assert ours.keys() == usual.keys()
    assert ours == usual
    first, second = (json.loads(bucket.read(f"{root}/runs/{DATE}/decision.json")) for root in ("two_parts", "one_part"))
    assert (first["outcome"], first["train_rows"], first["eval_rows"]) == ("promoted", 6000, 1500)
    assert (second["train_rows"], second["eval_rows"]) == (6000, 1500)
