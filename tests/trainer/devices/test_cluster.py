from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.manifest import DotbiasError
from trainer.devices.cluster import num_workers, worker_index


def cluster(kind: str, index: int, **tasks: int) -> dict[str, Any]:
    addresses = {name: [f"{name}{number}:1" for number in range(count)] for name, count in tasks.items()}
    return {"cluster": addresses, "task": {"type": kind, "index": index}}


@pytest.mark.parametrize(
    ("config", "workers", "index"),
    [
        (None, 1, 0),
        ({}, 1, 0),
        (cluster("worker", 0, worker=1), 1, 0),
        (cluster("worker", 0, worker=2), 2, 0),
        (cluster("worker", 1, worker=2), 2, 1),
        # A chief is the first worker.
        (cluster("chief", 0, chief=1, worker=2), 3, 0),
        (cluster("worker", 0, chief=1, worker=2), 3, 1),
        (cluster("worker", 1, chief=1, worker=2), 3, 2),
    ],
)
def test_who_this_process_is(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any] | None, workers: int, index: int
) -> None:
    monkeypatch.setenv("TF_CONFIG", "" if config is None else json.dumps(config))
    assert (num_workers(), worker_index()) == (workers, index)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "TF_CONFIG cannot be read .*JSON"),
        ('{"cluster": {"worker": "a:1"}}', "cluster.worker: .* valid array"),
        (json.dumps(cluster("evaluator", 0, worker=2)), "task.type: .*'chief' or 'worker'"),
        (json.dumps({"cluster": cluster("worker", 0, worker=2)["cluster"]}), "several workers and no `task`"),
    ],
)
def test_what_tensorflow_would_not_take(monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    for function in (num_workers, worker_index):
        with pytest.raises(DotbiasError, match=message):
            function()
