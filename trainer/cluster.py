"""The workers that `TF_CONFIG` lists, and which of them this process is; asked without TensorFlow."""

from __future__ import annotations

import json
import os
from typing import Any


def num_workers() -> int:
    """1 without `TF_CONFIG`."""
    cluster = _tf_config().get("cluster", {})
    return len(cluster.get("worker", [])) + len(cluster.get("chief", [])) or 1


def worker_index() -> int:
    """Of this process; 0 is the chief, which alone writes what all have made."""
    if num_workers() < 2:
        return 0
    task, chiefs = _tf_config()["task"], len(_tf_config()["cluster"].get("chief", []))
    return int(task["index"]) + (chiefs if task["type"] == "worker" else 0)


def _tf_config() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(os.environ.get("TF_CONFIG") or "{}")
    return found
