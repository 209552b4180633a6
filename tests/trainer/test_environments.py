"""Runs the trainer in an environment with nothing else, on a dataset that was made elsewhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.conftest import small_config, small_dataset

ROOT = Path(__file__).resolve().parents[2]
# Scores two rows through an export, and says what is installed.
SCORE = """
import importlib.util, json, sys
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
found = serve(userId=tf.constant([3, -1], tf.int64), movieId=tf.constant([993, 5], tf.int64))
absent = [name for name in ("apache_beam", "tensorflow_transform", "pyarrow") if not importlib.util.find_spec(name)]
probability = found["probability"].numpy().tolist()
print(json.dumps({"probability": probability, "tensorflow": tf.__version__, "absent": absent}))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("tensorflow", ["2.20", "2.21"], ids=["that of a TPU host", "that of the pipeline"])
def test_trains_without_the_pipeline(tensorflow: str, tmp_path: Path) -> None:
    config = small_config()
    small_dataset(tmp_path / "dataset", config)
    (tmp_path / "config.yaml").write_text(json.dumps({"trainer": config.model_dump(mode="json")}))
    python = tmp_path / "environment" / "bin" / "python"
    run(sys.executable, "-m", "venv", str(tmp_path / "environment"))
    # A copy, for a build leaves things behind.
    shutil.copytree(ROOT, tmp_path / "checkout", ignore=shutil.ignore_patterns(".*", "out"))
    run(str(python), "-m", "pip", "install", "--quiet", f"{tmp_path}/checkout[trainer]", f"tensorflow=={tensorflow}.*")

    flags = ("--dataset", "dataset", "--model_dir", "model", "--config", "config.yaml")
    # From a directory without the checkout, so that what is installed is what runs.
    said = run(str(python), "-m", "trainer", *flags, cwd=tmp_path)
    assert "eval auc:" in said
    assert json.loads((tmp_path / "model" / "metrics.json").read_text())["eval"]["auc"] > 0.6
    there = json.loads(run(str(python), "-c", SCORE, "model/export", cwd=tmp_path).splitlines()[-1])
    assert there["tensorflow"].startswith(tensorflow)
    assert there["absent"] == ["apache_beam", "tensorflow_transform", "pyarrow"]
    here = json.loads(run(sys.executable, "-c", SCORE, "model/export", cwd=tmp_path).splitlines()[-1])
    np.testing.assert_allclose(there["probability"], here["probability"], atol=1e-6)


def run(*command: str, cwd: Path | None = None) -> str:
    result = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
