"""Defines a night as a DAG of Airflow 3: makes the model of a date, decides whether it serves, and shows why.

Copy this file into the folder of DAGs. It reads these Variables of Airflow; an environment variable such as
AIRFLOW_VAR_DOTBIAS_CONFIG does as well:

    dotbias_command      how a worker starts Dotbias; `dotbias` by default
    dotbias_config       the configuration; /srv/dotbias/retrain.yaml by default
    dotbias_input        the log: files or globs, with a space between; /srv/dotbias/logs/* by default
    dotbias_output_root  a directory or gs://; /srv/dotbias/out by default
    dotbias_flags        more flags, such as those of Beam; none by default

A scheduled run makes the model of its logical date. Another date:

    airflow dags trigger dotbias --conf '{"date": "2026-11-24"}'
"""

from __future__ import annotations

import json
import logging
import shlex
import subprocess
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException

WRONG_USAGE = 2

log = logging.getLogger(__name__)


def variable(name: str, default: str) -> str:
    """Returns a template that a task fills in when it starts, so that parsing the DAG asks nobody."""
    return "{{ var.value.get('dotbias_%s', '%s') }}" % (name, default)  # noqa: UP031


COMMAND = variable("command", "dotbias")
CONFIG = variable("config", "/srv/dotbias/retrain.yaml")
INPUT = variable("input", "/srv/dotbias/logs/*")
OUTPUT_ROOT = variable("output_root", "/srv/dotbias/out")
FLAGS = variable("flags", "")


@dag(
    # A time when the rows of the day before are complete.
    schedule="30 1 * * *",
    start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
    # The rows of a night that was missed are in the window of the next one.
    catchup=False,
    # One night at a time, so that each is compared with the champion of the night before. Runs do not depend on past
    # ones: after a night that failed, the next one starts from the champion that still serves.
    max_active_runs=1,
    params={"date": Param(None, type=["null", "string"], format="date", description="Instead of the logical date.")},
    doc_md=__doc__,
    tags=["dotbias"],
)
def dotbias() -> None:
    # The command goes on where an earlier try was stopped.
    @task(multiple_outputs=True, retries=3, retry_exponential_backoff=True, max_retry_delay=timedelta(hours=1))
    def retrain(
        command: str,
        config: str,
        log_files: str,
        output_root: str,
        flags: str,
        params: Any = None,
        data_interval_end: Any = None,
    ) -> dict[str, Any]:
        """Makes the night; returns what was decided, why, and where the report is."""
        date = params["date"] or (data_interval_end and data_interval_end.strftime("%Y-%m-%d"))
        if not date:
            raise AirflowFailException('A run without a logical date needs one: --conf \'{"date": "2026-11-24"}\'')
        line = [*shlex.split(command), "retrain", "--date", date, "--config", config, "--output_root", output_root]
        decision = run([*line, "--input", *shlex.split(log_files), *shlex.split(flags)])
        report = f"{output_root}/runs/{date}/report.html".replace("gs://", "https://storage.cloud.google.com/", 1)
        log.info("%s %s; %s; %s", date, decision["outcome"], "; ".join(decision["reasons"]) or "all passed", report)
        shown = {key: decision[key] for key in ("outcome", "reasons", "version", "warnings")}
        return {"date": date, **shown, "report": report}

    @task
    def check_warnings(warnings: list[str]) -> None:
        """Fails if someone should look: no promotion for some nights, or a model that went out disappoints."""
        if warnings:
            raise AirflowFailException("\n".join(warnings))

    check_warnings(retrain(COMMAND, CONFIG, INPUT, OUTPUT_ROOT, FLAGS)["warnings"])


def run(line: list[str]) -> Any:
    """Runs a command with its output in the log of the task; returns its summary.

    Raises:
        AirflowFailException: flags or configuration are wrong, so another try would not help.
        AirflowException: it failed otherwise.
    """
    log.info("%s", shlex.join(line))
    with tempfile.TemporaryDirectory() as directory:
        summary = Path(directory) / "summary.json"
        process = subprocess.Popen(
            [*line, "--json", str(summary)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        last = ""
        try:
            for text in process.stdout:
                last = text.rstrip()
                log.info("%s", last)
            code = process.wait()
        finally:
            # The command saves a checkpoint when the task is stopped.
            process.terminate()
            process.wait()
        if code:
            kind = AirflowFailException if code == WRONG_USAGE else AirflowException
            raise kind(f"exit code {code}: {last}")
        return json.loads(summary.read_text())


dotbias()
