"""Trains on GPUs, if there are some; each process sees only the devices of one strategy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from tests.trainer.conftest import small_config, small_dataset

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, sys
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.devices.strategy import make_strategy
from trainer.build import build_model
from trainer.train import train
config = TrainerConfig.model_validate_json(sys.argv[3])
result = train(sys.argv[1], sys.argv[2], config)
strategy = make_strategy(config.strategy)
with strategy.scope():
    model = build_model(Dataset.open(sys.argv[1], config), config, strategy)
copies = [copy for table in model.tables.values() for copy in strategy.experimental_local_results(table)]
print(json.dumps({"result": result, "devices": [copy.device for copy in copies]}))
"""


def run(dataset: Path, model_dir: Path, strategy: str) -> tuple[dict[str, Any], list[str]]:
    """Returns the metrics of a training, and the device of each copy of a table."""
    config = small_config().model_copy(update={"strategy": strategy, "batch_size": 120}).model_dump_json()
    command = [sys.executable, "-c", PROGRAM, str(dataset), str(model_dir), config]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    return said["result"], said["devices"]


@pytest.mark.skipif(not tf.config.list_physical_devices("GPU"), reason="needs a GPU that TensorFlow sees")
def test_gpus_train_what_the_cpu_trains(tmp_path: Path) -> None:
    small_dataset(tmp_path / "dataset", small_config())
    on_cpu, _ = run(tmp_path / "dataset", tmp_path / "cpu", "cpu")
    on_gpu, devices = run(tmp_path / "dataset", tmp_path / "gpu", "gpu")
    gpus = len(tf.config.list_physical_devices("GPU"))
    # Every GPU has both tables.
    assert len(devices) == 2 * gpus
    assert {device.rpartition("device:")[2] for device in devices} == {f"GPU:{i}" for i in range(gpus)}
    for ours, theirs in zip(on_gpu["train"]["epochs"], on_cpu["train"]["epochs"], strict=True):
        assert ours["train"] == pytest.approx(theirs["train"], abs=1e-3)
    assert on_gpu["eval"] == pytest.approx(on_cpu["eval"], abs=1e-3)
