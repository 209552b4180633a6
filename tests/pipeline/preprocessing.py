"""Writes logs in the format of MovieLens, and makes datasets from them."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import PipelineConfig
from pipeline.manifest import SPLITS, DatasetManifest
from pipeline.preprocess import preprocess

FN_API_RUNNER = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
HEADER = "userId,movieId,rating,timestamp\n"
EVAL_FRACTION = 0.1


def config(patterns: Iterable[Path], **fields: Any) -> PipelineConfig:
    """Returns a configuration like configs/movielens.yaml."""
    return PipelineConfig.model_validate(
        {
            "input": {"patterns": [str(pattern) for pattern in patterns]},
            "columns": {"userId": "int64", "movieId": "int64", "rating": "float32", "timestamp": "int64"},
            "label": {"column": "rating", "threshold": 4.0, "scale": [0.5, 5.0], "soft_weight": 0.8},
            "features": {"userId": {"side": "user"}, "movieId": {"side": "item", "top_k": 300}},
            "timestamp_column": "timestamp",
            "split": {"eval_fraction": EVAL_FRACTION},
            "rows_per_shard": 2000,
            **fields,
        }
    )


def make(dataset: Path, options: PipelineConfig, *flags: str) -> DatasetManifest:
    return preprocess(str(dataset), options, [FN_API_RUNNER, *flags])


def ratings(rows: int, seed: int) -> list[str]:
    """Returns lines in the format of MovieLens: few popular ids, many rare ones, half stars."""
    draw = np.random.default_rng(seed)
    users, movies = draw.zipf(1.4, rows) % 600, draw.zipf(1.3, rows) % 4000
    stars, seconds = draw.integers(1, 11, rows) / 2, draw.integers(9e8, 15e8, rows)
    return [f"{u},{m},{r},{t}\n" for u, m, r, t in zip(users, movies, stars, seconds, strict=True)]


def write_log(directory: Path) -> list[Path]:
    """Writes four files with 12 000 rows, one of them gzip, and two bad lines; returns their paths."""
    directory.mkdir(exist_ok=True)
    for number in range(4):
        lines = ratings(3000, seed=number)
        if number == 2:
            lines[100] = "1,2,9.5,3\n"
            lines[200] = '7,"8\n'
        text = (HEADER + "".join(lines)).encode()
        if number == 3:
            (directory / "3.csv.gz").write_bytes(gzip.compress(text))
        else:
            (directory / f"{number}.csv").write_bytes(text)
    return [directory / "*"]


def contents(dataset: Path) -> dict[str, bytes]:
    """Returns all bytes that must not depend on the run, by name."""
    directories = (*SPLITS, "vocabulary", "rejected")
    paths = [path for directory in directories for path in sorted((dataset / directory).glob("*"))]
    return {str(path.relative_to(dataset)): path.read_bytes() for path in (*paths, dataset / "manifest.json")}


def top_level(dataset: Path) -> set[str]:
    return {path.name for path in dataset.iterdir()}
