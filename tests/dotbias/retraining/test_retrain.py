"""Runs nights by the real command on a log that drifts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import tensorflow as tf
import yaml

from pipeline.sample.drift import DriftConfig, write_days

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
CONFIG = {
    "pipeline": {
        "columns": {"userId": "int64", "movieId": "int64", "clicked": "int64", "timestamp": "int64"},
        "label": {"column": "clicked"},
        "features": {"userId": {"side": "user"}, "movieId": {"side": "item"}},
        "timestamp_column": "timestamp",
    },
    "trainer": {"embedding_dim": 4, "batch_size": 512, "epochs": 4},
    "retraining": {"window_days": 5},
}


def command(directory: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "run_pipeline.py"), *arguments, "--output_root", str(directory / "out")]


def night(directory: Path, date: str, *more: str) -> list[str]:
    config, log = str(directory / "config.yaml"), str(directory / "log" / "*.csv")
    return command(directory, "retrain", "--date", date, "--config", config, "--input", log, *more)


def done(line: Sequence[str], code: int = 0) -> str:
    """Runs a command to its end; returns what it printed, on stderr if it was to fail."""
    ran = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    assert ran.returncode == code, ran.stderr
    return ran.stdout if code == 0 else ran.stderr


def make_log(directory: Path, days: int) -> None:
    config = DriftConfig(days=days, rows=1500, users=150, items=60)
    assert len(list(write_days(config, str(directory / "log")))) == days
    (directory / "config.yaml").write_text(yaml.safe_dump(CONFIG))


def read(directory: Path, name: str) -> dict:  # type: ignore[type-arg]
    return json.loads((directory / "out" / name).read_text())


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs two nights one after the other."""
    directory = tmp_path_factory.mktemp("nights")
    make_log(directory, 9)
    for date in ("2026-01-07", "2026-01-08"):
        done(night(directory, date))
    return directory


def test_a_second_night_starts_from_the_first_and_is_compared_with_it(nights: Path) -> None:
    first, second = (read(nights, f"runs/2026-01-0{day}/decision.json") for day in (7, 8))
    assert (first["champion"], first["outcome"], first["gains"]) == (None, "promoted", None)
    assert second["champion"] == "2026-01-07"
    assert second["gains"]["auc"]["low"] is not None
    assert second["refit_gains"]["auc"]["value"] is not None
    # Five days but the newest, which is eval.
    assert (second["train_rows"], second["eval_rows"]) == (6000, 1500)
    kept = second["warm_start"]["features"]["userId"]["kept"]
    assert kept > 100
    plan = read(nights, "runs/2026-01-08/plan.json")
    assert (plan["start"], plan["train_since"], plan["eval_since"]) == ("2026-01-07", "2026-01-03", "2026-01-07")


def test_what_serves_is_the_champion(nights: Path) -> None:
    champion = read(nights, "champion.json")
    decision = read(nights, f"runs/{champion['run_id']}/decision.json")
    assert decision["outcome"] == "promoted"
    assert decision["version"] == champion["version"]
    served = nights / "out" / "serving" / str(champion["version"])
    assert (served / "assets.extra" / "tf_serving_warmup_requests").stat().st_size > 0
    model = tf.saved_model.load(str(served))
    answer = model.signatures["serving_default"](userId=tf.constant([1], tf.int64), movieId=tf.constant([2], tf.int64))
    assert 0 < float(answer["probability"][0]) < 1


def test_a_night_that_has_decided_decides_the_same_again(nights: Path) -> None:
    path = nights / "out" / "runs" / "2026-01-08" / "decision.json"
    before = path.read_bytes(), path.stat().st_mtime_ns
    said = done(night(nights, "2026-01-08"))
    assert "Decision    " in said
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_the_history_of_both(nights: Path) -> None:
    said = done(command(nights, "history"))
    assert [line.split()[0] for line in said.splitlines()[1:3]] == ["2026-01-07", "2026-01-08"]
    machine = json.loads(done(command(nights, "history", "--json", "-")))
    assert len(machine["nights"]) == 2
    assert all(past["seconds"] > 0 for past in machine["nights"])
    assert "2026-01-08" in (nights / "out" / "history.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs --date"),
        (["--date", "yesterday"], "Received: 'yesterday'"),
        (["--date", "20260108"], "Received: '20260108'"),
        (["--date", "2026-01-08", "--set", "pipeline.timestamp_column=null"], "needs `pipeline.timestamp_column`"),
        (["--date", "2026-01-08", "--run_id", "x"], "--run_id belongs to"),
        (["--date", "2026-01-08", "--set", "retraining.eval_days=5"], "`eval_days` should be less than"),
    ],
)
def test_mistakes(nights: Path, arguments: list[str], message: str) -> None:
    line = command(nights, "retrain", "--config", str(nights / "config.yaml"), *arguments)
    said = done([*line, "--input", str(nights / "log" / "*.csv")], code=2)
    assert message in said
    assert len(said.splitlines()) == 1


def test_a_date_without_rows_is_one_line(nights: Path) -> None:
    said = done(night(nights, "2026-02-20"), code=1)
    assert "no row is left to train on" in said
    assert "Traceback" not in said
