"""Runs the real command in a process that finds gs:// and Dataflow on loopback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.dataflow.service import Service
from tests.dataflow.storage import BUCKET, PROJECT

ROOT = Path(__file__).resolve().parents[2]
RUN_ID = "2026-11-24"
HEADER = "userId,movieId,rating,timestamp\n"


def ratings(rows: int, seed: int) -> str:
    """Returns lines in the format of MovieLens."""
    draw = np.random.default_rng(seed)
    users, movies = draw.zipf(1.4, rows) % 60, draw.zipf(1.3, rows) % 90
    stars, seconds = draw.integers(1, 11, rows) / 2, draw.integers(9e8, 15e8, rows)
    return "".join(f"{u},{m},{r},{t}\n" for u, m, r, t in zip(users, movies, stars, seconds, strict=True))


def dataset(output_root: str) -> str:
    return f"{output_root}/runs/{RUN_ID}/dataset/"


def preprocess(
    environment: Mapping[str, str], output_root: str, *flags: str, pattern: str = f"gs://{BUCKET}/log/*"
) -> subprocess.CompletedProcess[str]:
    """Preprocesses the log of the bucket, or that of `pattern`, from a directory that is not the repository's."""
    command = [sys.executable, str(ROOT / "run_pipeline.py"), "--config", str(ROOT / "configs" / "movielens.yaml")]
    given = ["--input", pattern, "--output_root", output_root, "--run_id", RUN_ID, "--stage", "preprocess"]
    # Some shards of each split, and the two bad rows of the log.
    settings = ["--set=pipeline.rows_per_shard=1000", "--set=pipeline.max_rejected_fraction=0.01"]
    return subprocess.run(
        [*command, *given, *settings, *flags], cwd="/", env=environment, capture_output=True, text=True
    )


def on_dataflow(service: Service) -> tuple[str, ...]:
    return (
        "--runner=DataflowRunner",
        f"--project={PROJECT}",
        "--region=europe-west1",
        f"--temp_location=gs://{BUCKET}/tmp",
        f"--dataflow_endpoint={service.endpoint}",
    )
