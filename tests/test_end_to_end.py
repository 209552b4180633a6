"""Runs the real command in an empty directory, from a log to a model, and once more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import SampleConfig
from pipeline.manifest import DatasetManifest, read_manifest
from pipeline.sample.generator import TrueModel

ROOT = Path(__file__).resolve().parents[1]
ROWS = 20_000


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ratings of the shape of MovieLens, which depend on user and item."""
    ((table, probabilities),) = TrueModel(SampleConfig(rows=ROWS, users=400, items=100)).chunks("train", ROWS)
    stars = np.clip(np.round(probabilities * 10 + np.random.default_rng(1).normal(0, 1, ROWS)), 1, 10) / 2
    columns = [table["userId"], table["movieId"], stars, table["timestamp"]]
    path = tmp_path_factory.mktemp("log") / "ratings.csv"
    lines = (f"{user},{movie},{rating},{at}\n" for user, movie, rating, at in zip(*columns, strict=True))
    path.write_text("userId,movieId,rating,timestamp\n" + "".join(lines))
    return path


def run(directory: Path, *arguments: object, python_path: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run_pipeline.py"), *map(str, arguments), "--set", "trainer.epochs=2"]
    environment = {**os.environ, "PYTHONPATH": python_path}
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done


def modified(directory: Path) -> dict[str, int]:
    """Returns when each file was written; 0 for a directory, in which a lock is made and deleted."""
    return {
        str(path.relative_to(directory)): 0 if path.is_dir() else path.stat().st_mtime_ns
        for path in directory.glob("**/*")
    }


def check_dataset(directory: Path, encoding: str) -> DatasetManifest:
    manifest = read_manifest(str(directory))
    assert manifest.counts.read == ROWS
    assert {feature.encoding for feature in manifest.features.values()} == {encoding}
    assert not (directory / ".tmp").exists()
    return manifest


def check_model(directory: Path, manifest: DatasetManifest) -> None:
    metrics: dict[str, Any] = json.loads((directory / "metrics.json").read_text())
    assert len(metrics["train"]["epochs"]) == 2
    names = {"label-crossentropy", "auc", "pr-auc", "accuracy", "prediction_mean", "label_mean"}
    assert names <= metrics["eval"].keys()
    assert metrics["eval"]["label_mean"] == pytest.approx(manifest.splits["eval"].label_mean, abs=1e-4)
    # Two epochs are few, but not nothing.
    assert metrics["eval"]["auc"] > 0.65


def predictions(output: str, directory: Path) -> str:
    """Returns what the snippet prints that the command shows for using the export, in a fresh interpreter."""
    code = output[output.index("    import tensorflow") :]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=directory, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.slow
def test_vocabulary_from_log_to_export(log: Path, tmp_path: Path) -> None:
    arguments = ["--config", ROOT / "configs/movielens.yaml", "--input", log, "--run_id", "2026-11-24"]
    first = run(tmp_path, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    root = tmp_path / "out/runs/2026-11-24"
    manifest = check_dataset(root / "dataset", "vocabulary")
    check_model(root / "model", manifest)
    assert "Rows        20,000 read = " in first.stdout
    assert "tf.Tensor([0." in predictions(first.stdout, tmp_path)

    before = modified(tmp_path / "out")
    # All is done, so nothing that takes seconds to import is needed.
    for name in ("apache_beam", "tensorflow", "sklearn"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError(__name__)")
    second = run(tmp_path, *arguments, python_path=str(tmp_path))
    assert "already done by an earlier start" in second.stdout
    assert modified(tmp_path / "out") == before


@pytest.mark.slow
def test_hashing_stage_by_stage(log: Path, tmp_path: Path) -> None:
    arguments = ["--config", ROOT / "configs/hashing.yaml", "--input", log, "--output_root", tmp_path / "elsewhere"]
    run(tmp_path, *arguments, "--run_id", "a", "--stage", "preprocess")
    root = tmp_path / "elsewhere/runs/a"
    manifest = check_dataset(root / "dataset", "hashing")
    assert not (root / "model").exists()

    before = modified(root / "dataset")
    trained = run(tmp_path, *arguments, "--run_id", "a", "--stage", "train")
    check_model(root / "model", manifest)
    assert modified(root / "dataset") == before
    assert "tf.Tensor([0." in predictions(trained.stdout, tmp_path)


@pytest.mark.slow
def test_another_configuration_under_the_same_run_id(log: Path, tmp_path: Path) -> None:
    arguments = ["--config", ROOT / "configs/hashing.yaml", "--input", log, "--stage", "preprocess"]
    run(tmp_path, *arguments)
    before = modified(tmp_path)
    command = [sys.executable, str(ROOT / "run_pipeline.py"), *map(str, arguments), "--set", "pipeline.seed=7"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "was made with `pipeline.seed` 42, not 7" in line
    assert modified(tmp_path) == before
