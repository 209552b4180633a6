"""Trains one model in two processes on this machine, with `TF_CONFIG`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.conftest import SIDES, random_rows, small_config, small_dataset
from tests.trainer.datasets import write_dataset

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
PROGRAM = """
import json, logging, sys
from pipeline.manifest import DotbiasError
from trainer.config import TrainerConfig
from trainer.train import train
logging.basicConfig(level=logging.WARNING)
logging.getLogger("trainer.train").setLevel(logging.INFO)
config = TrainerConfig.model_validate_json(sys.argv[3])
try:
    result = train(sys.argv[1], sys.argv[2], config, lambda stage, done, *_: print(stage, done, flush=True))
except DotbiasError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
print(json.dumps(result))
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(dataset: Path, model_dir: Path, config: dict[str, Any], workers: int) -> list[subprocess.Popen[str]]:
    """Starts the processes of a job; a single one has no cluster."""
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(workers)]}
    processes = []
    for index in range(workers):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        if workers > 1:
            environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        command = [sys.executable, "-c", PROGRAM, str(dataset), str(model_dir), json.dumps(config)]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        processes.append(process)
    return processes


def finish(processes: list[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    outputs = [process.communicate(timeout=300) for process in processes]
    for process, (_, log) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, log
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


def losses(result: dict[str, Any]) -> list[float]:
    return [record["train"]["label-crossentropy"] for record in result["train"]["epochs"]]


def test_two_workers_do_what_one_does(tmp_path: Path) -> None:
    config = {
        **small_config().model_dump(mode="json"),
        # All rows in one step, so that it does not matter which worker has which: 300 and 250 of them.
        "batch_size": 1024,
        "epochs": 8,
        "optimizer": {"learning_rate": 0.05},
    }
    small_dataset(tmp_path / "dataset", small_config())
    (alone,) = finish(start(tmp_path / "dataset", tmp_path / "one", config, 1))
    first, second = finish(start(tmp_path / "dataset", tmp_path / "two", config, 2))
    assert losses(first) == losses(second) == pytest.approx(losses(alone), rel=1e-5)
    assert losses(alone)[-1] < losses(alone)[0] - 0.02
    assert first["eval"] == pytest.approx(alone["eval"], abs=1e-4)
    # Each row once: the mean label of every epoch is that of the split.
    for record in first["train"]["epochs"]:
        assert record["train"]["label_mean"] == pytest.approx(alone["train"]["epochs"][0]["train"]["label_mean"])
    # By the chief alone.
    assert (tmp_path / "two" / "export" / "saved_model.pb").exists()
    assert not list((tmp_path / "two" / "checkpoints").glob("worker-*"))


# With periods of 1,280 rows, the worker is lost within the fifth, which began in the epoch before.
@pytest.mark.parametrize("evaluate_every_rows", [None, 1250])
def test_without_one_worker_the_other_ends_and_both_go_on(tmp_path: Path, evaluate_every_rows: int | None) -> None:
    rows = 4000
    write_dataset(tmp_path / "dataset", random_rows(rows, 1), random_rows(500, 2), SIDES, rows_per_shard=500)
    config = {
        "embedding_dim": 4,
        "batch_size": 64,
        "epochs": 3,
        "evaluate_every_rows": evaluate_every_rows,
        "steps_per_execution": 4,
        "checkpoint": {"every_steps": 8},
        "refit": False,
    }
    workers = start(tmp_path / "dataset", tmp_path / "model", config, 2)
    output = workers[1].stdout
    assert output is not None
    for line in output:
        if int(line.split()[1]) > rows * 1.5:
            workers[1].send_signal(signal.SIGKILL)
            break
    _, log = workers[0].communicate(timeout=300)
    workers[1].communicate()
    assert workers[0].returncode == 1
    assert "Another worker" in log.splitlines()[-1] and "same command" in log.splitlines()[-1], log[-3000:]
    assert not (tmp_path / "model" / "export").exists()

    resumed, _ = finish(start(tmp_path / "dataset", tmp_path / "model", config, 2))
    (undisturbed, _) = finish(start(tmp_path / "dataset", tmp_path / "undisturbed", config, 2))
    assert losses(resumed) == pytest.approx(losses(undisturbed), abs=1e-5)
    assert resumed["eval"] == pytest.approx(undisturbed["eval"], abs=1e-4)
