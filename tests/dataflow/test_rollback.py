"""Rollbacks on gs://, against an emulator of Cloud Storage."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from dotbias.retraining.champion import Champion
from tests.dataflow.command import ROOT
from tests.dataflow.storage import Storage
from tests.dotbias.retraining.nights import decision

pytestmark = pytest.mark.slow
RUNS = ("2026-11-01", "2026-11-02", "2026-11-03")


def test_two_rollbacks_at_once_leave_the_champion_that_serves(bucket: Storage) -> None:
    """One waits for the other, each has a version of its own, and no lock is left."""
    for run in RUNS:
        bucket.write(f"rollback/runs/{run}/decision.json", decision(run).to_json().encode())
        bucket.write(f"rollback/runs/{run}/model/export/saved_model.pb", run.encode())
        bucket.write(f"rollback/runs/{run}/model/export/variables/variables.index", b"checksums of " + run.encode())
    champion = Champion(run_id=RUNS[2], version=2026110300, decided_by="x")
    bucket.write("rollback/champion.json", champion.to_json().encode())
    line = [sys.executable, str(ROOT / "run_pipeline.py"), "rollback", "--output_root", "gs://bucket/rollback"]
    both = [
        subprocess.Popen([*line, "--run_id", run], stderr=subprocess.PIPE, text=True, env=bucket.environment)
        for run in RUNS[:2]
    ]
    for process in both:
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr
    found = Champion.model_validate_json(bucket.read("rollback/champion.json"))
    assert found.version == 2026110302 and found.previous is not None
    assert {found.run_id, found.previous.run_id} == set(RUNS[:2])
    for version, run in ((found.version, found.run_id), (found.previous.version, found.previous.run_id)):
        served = bucket.contents(f"rollback/serving/{version}/")
        assert served["saved_model.pb"] == run.encode()
        assert json.loads(served["assets.extra/dotbias.json"])["run_id"] == run
    assert not [name for name in bucket.names("rollback/") if name.endswith(".lock")]
