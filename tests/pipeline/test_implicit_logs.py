"""Logs without labels, from CSV to shards."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import PipelineConfig
from pipeline.manifest import SPLITS
from tests.pipeline.preprocessing import make


def test_a_log_without_labels_and_times(tmp_path: Path) -> None:
    """Each pair is kept once, with label 1, however the log is divided into files."""
    rng = np.random.default_rng(5)
    pairs = list(zip(rng.integers(0, 50, 3000).tolist(), rng.integers(0, 40, 3000).tolist(), strict=True))
    lines = [f"{user},{item}\n" for user, item in pairs]
    for number, part in enumerate((lines[:1000], lines[1000:])):
        (tmp_path / f"log-{number}.csv").write_text("userId,itemId\n" + "".join(part))
    options = PipelineConfig.model_validate(
        {
            "input": {"patterns": [str(tmp_path / "log-*.csv")]},
            "columns": {"userId": "int64", "itemId": "int64"},
            "label": "implicit",
            "features": {
                "userId": {"side": "user", "frequency_threshold": 1},
                "itemId": {"side": "item", "encoding": "hashing"},
            },
            "duplicates": "last",
        }
    )
    manifest = make(tmp_path / "dataset", options)
    assert manifest.label.column is None
    assert manifest.counts.duplicates == 3000 - len(set(pairs))
    users = (tmp_path / "dataset" / "vocabulary" / "userId.txt").read_text().split()
    found = []
    for split in SPLITS:
        assert manifest.splits[split].label_mean == 1.0 and manifest.splits[split].rows > 0
        for shard in manifest.splits[split].shards:
            for line in gzip.decompress((tmp_path / "dataset" / shard.path).read_bytes()).decode().splitlines():
                user, item, label = line.split(",")
                assert float(label) == 1.0
                found.append((int(users[int(user)]) if int(user) < len(users) else -1, int(item)))
    known = [pair for pair in found if pair[0] >= 0]
    assert len(found) == len(set(pairs)) and set(known) <= set(pairs) and len(known) > 0.9 * len(found)


@pytest.mark.parametrize("duplicates", ["keep", "last"])
def test_a_log_without_labels_but_with_times(tmp_path: Path, duplicates: str) -> None:
    rng = np.random.default_rng(6)
    rows = list(zip(rng.integers(0, 5, 200).tolist(), rng.integers(0, 4, 200).tolist(), range(200), strict=True))
    lines = "".join(f"{time},{user},{item}\n" for user, item, time in rows)
    (tmp_path / "log.csv").write_text("time,userId,itemId\n" + lines)
    sides = (("userId", "user"), ("itemId", "item"))
    options = PipelineConfig.model_validate(
        {
            "input": {"patterns": [str(tmp_path / "log.csv")]},
            "columns": {"time": "int64", "userId": "int64", "itemId": "int64"},
            "label": "implicit",
            "features": {name: {"side": side, "encoding": "hashing"} for name, side in sides},
            "timestamp_column": "time",
            "duplicates": duplicates,
        }
    )
    manifest = make(tmp_path / "dataset", options)
    found = [
        tuple(map(float, line.split(b",")))
        for split in manifest.splits.values()
        for shard in split.shards
        for line in gzip.decompress((tmp_path / "dataset" / shard.path).read_bytes()).splitlines()
    ]
    latest = {(user, item): time for user, item, time in rows}
    expected = rows if duplicates == "keep" else [(*pair, time) for pair, time in latest.items()]
    assert sorted(found) == sorted((user, item, 1.0, time) for user, item, time in expected)
