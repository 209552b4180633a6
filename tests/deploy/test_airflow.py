"""Runs the DAG of deploy/airflow/ by Airflow in its own environment, with the real command on a drifting log."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.sample.drift import DriftConfig, write_days
from tests.dotbias.retraining.test_retrain import CONFIG

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).resolve().parents[2]
# Airflow wants a set of packages that was tried together.
CONSTRAINTS = Path(__file__).with_name("airflow-constraints.txt")
FIRST, SECOND, BACKFILL = "2026-01-07", "2026-01-08", "2026-01-05"


@dataclass(frozen=True)
class Airflow:
    """Holds an Airflow with its database, and the directory that its command writes to."""

    directory: Path
    environment: Mapping[str, str]

    def __call__(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        program = self.directory / "venv" / "bin" / "airflow"
        environment = {**self.environment, **more}
        return subprocess.run([str(program), *arguments], env=environment, capture_output=True, text=True)

    def night(self, date: str, *flags: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self("dags", "test", "dotbias", date, *flags, **more)

    def tasks(self, logical_date: str) -> dict[str, tuple[str, int]]:
        """Returns state and number of tries of the tasks of a run."""
        rows = self._query(
            "select t.task_id, t.state, t.try_number from task_instance t join dag_run r using (dag_id, run_id) "
            "where date(r.logical_date) = ?",
            logical_date,
        )
        return {task: (state, tries) for task, state, tries in rows}

    def decided(self, logical_date: str) -> Any:
        """Returns what the task `retrain` hands on."""
        ((value,),) = self._query(
            "select x.value from xcom x join dag_run r using (dag_id, run_id) "
            "where x.task_id = 'retrain' and x.key = 'return_value' and date(r.logical_date) = ?",
            logical_date,
        )
        return json.loads(value)

    def read(self, name: str) -> Any:
        return json.loads((self.directory / "out" / name).read_text())

    def _query(self, statement: str, *values: str) -> list[Any]:
        with sqlite3.connect(self.directory / "home" / "airflow.db") as database:
            return database.execute(statement, values).fetchall()


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    directory = tmp_path_factory.mktemp("airflow")
    subprocess.run([sys.executable, "-m", "venv", str(directory / "venv")], check=True)
    pip = [str(directory / "venv" / "bin" / "pip"), "install", "--quiet", "--constraint", str(CONSTRAINTS)]
    subprocess.run([*pip, "apache-airflow"], check=True)
    list(write_days(DriftConfig(days=8, rows=1500, users=150, items=60), str(directory / "log")))
    (directory / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    made = Airflow(
        directory,
        {
            **os.environ,
            # No network from here on.
            "http_proxy": "http://127.0.0.1:9",
            "https_proxy": "http://127.0.0.1:9",
            "AIRFLOW_HOME": str(directory / "home"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "deploy" / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW_VAR_DOTBIAS_COMMAND": f"{sys.executable} {ROOT / 'run_pipeline.py'}",
            "AIRFLOW_VAR_DOTBIAS_CONFIG": str(directory / "config.yaml"),
            "AIRFLOW_VAR_DOTBIAS_INPUT": str(directory / "log" / "*.csv"),
            "AIRFLOW_VAR_DOTBIAS_OUTPUT_ROOT": str(directory / "out"),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
    )
    migrated = made("db", "migrate")
    assert migrated.returncode == 0, migrated.stderr
    return made


def test_two_nights_and_a_backfill(airflow: Airflow) -> None:
    for date in (FIRST, SECOND):
        done = airflow.night(date)
        assert done.returncode == 0, done.stdout + done.stderr
        assert airflow.tasks(date) == {"retrain": ("success", 1), "check_warnings": ("success", 1)}
    first, second = (airflow.read(f"runs/{date}/decision.json") for date in (FIRST, SECOND))
    assert (first["outcome"], second["champion"]) == ("promoted", FIRST)
    report = airflow.directory / "out" / "runs" / SECOND / "report.html"
    assert report.is_file()
    assert airflow.decided(SECOND) == {
        "date": SECOND,
        **{key: second[key] for key in ("outcome", "reasons", "version")},
        "warnings": [],
        "report": str(report),
    }
    champion = airflow.read("champion.json")
    # Of another date than the logical one, and older than what serves.
    done = airflow.night("2026-01-20", "--conf", json.dumps({"date": BACKFILL}))
    assert done.returncode == 0, done.stdout + done.stderr
    past = airflow.read(f"runs/{BACKFILL}/decision.json")
    assert (past["date"], past["outcome"], past["version"]) == (BACKFILL, "kept", None)
    assert airflow.decided("2026-01-20")["reasons"] == past["reasons"]
    assert airflow.read("champion.json") == champion


def test_a_night_that_failed_is_tried_again_and_then_red(airflow: Airflow) -> None:
    """A plan that this version cannot read ends the command with exit code 1."""
    plan = airflow.directory / "out" / "runs" / "2026-01-30" / "plan.json"
    plan.parent.mkdir(parents=True)
    plan.write_text("{")
    done = airflow.night("2026-01-30")
    assert done.returncode == 1
    assert airflow.tasks("2026-01-30") == {"retrain": ("failed", 4), "check_warnings": ("upstream_failed", 0)}
    assert f"{plan} cannot be read" in done.stdout + done.stderr


def test_wrong_usage_is_not_tried_again(airflow: Airflow) -> None:
    done = airflow.night("2026-01-31", AIRFLOW_VAR_DOTBIAS_FLAGS="--set retraining.no_such_key=1")
    assert done.returncode == 1
    assert airflow.tasks("2026-01-31") == {"retrain": ("failed", 1), "check_warnings": ("upstream_failed", 0)}
    assert "no_such_key" in done.stdout + done.stderr


def test_a_warning_is_red_and_the_decision_stands(airflow: Airflow) -> None:
    """With a gate that no model passes, the champion stays; here one such night gives a warning."""
    flags = "--set retraining.warn_after=1 --set retraining.gate.floors.auc=0.999"
    done = airflow.night("2026-01-09", AIRFLOW_VAR_DOTBIAS_FLAGS=flags)
    assert done.returncode == 1
    assert airflow.tasks("2026-01-09") == {"retrain": ("success", 1), "check_warnings": ("failed", 1)}
    assert airflow.read("runs/2026-01-09/decision.json")["outcome"] == "kept"
    (warning,) = airflow.decided("2026-01-09")["warnings"]
    assert warning in done.stdout + done.stderr
