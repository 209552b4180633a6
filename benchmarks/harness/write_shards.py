"""Writes a dataset directory of any size without the pipeline; ids follow a power law, labels a model with biases.

Arguments: directory, rows, users, items; and, optionally, a file for the train rows as NumPy arrays.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
from isal import igzip

from pipeline.manifest import (
    MANIFEST_NAME,
    Column,
    Counts,
    DatasetManifest,
    Feature,
    Label,
    Shard,
    Split,
    counts_name,
    shard_name,
    vocabulary_name,
)

ROWS_PER_SHARD = 1_000_000
SIDES = {"userId": "user", "movieId": "item"}


def write_dataset(
    directory: Path, rows: int, users: int, items: int, exponent: float = 0.8, seed: int = 42
) -> pa.Table:
    """Writes `rows` train rows, which it returns, and a tenth for eval. Popularity is (rank + 1) ** -exponent."""
    rng = np.random.default_rng(seed)
    columns = {"userId": _ids(rng, users, rows, exponent), "movieId": _ids(rng, items, rows, exponent)}
    chance = 0.2 + 0.6 * ((columns["userId"] * 7 + columns["movieId"] * 11) % 13) / 12
    label = (rng.random(rows) < chance).astype(np.int8)
    table = pa.table({**columns, "label": label})
    splits = {
        "train": _write_split(directory, "train", table),
        "eval": _write_split(directory, "eval", table.slice(0, rows // 10)),
    }
    features = {}
    for (name, side), size in zip(SIDES.items(), (users, items), strict=True):
        (directory / "vocabulary").mkdir(exist_ok=True)
        np.savetxt(directory / vocabulary_name(name), np.arange(size), fmt="%d")
        np.savetxt(directory / counts_name(name), np.bincount(columns[name], minlength=size), fmt="%d")
        features[name] = Feature(
            side=side,
            encoding="vocabulary",
            token_dtype="int64",
            vocabulary_size=size,
            num_oov_buckets=1,
            vocabulary_path=vocabulary_name(name),
            counts_path=counts_name(name),
            fingerprint="",
            oov_rows={"train": 0, "eval": 0},
        )
    total = rows + rows // 10
    manifest = DatasetManifest(
        columns=[
            *(Column(name=name, dtype="int64", role="feature") for name in SIDES),
            Column(name="label", dtype="float32", role="label"),
        ],
        label=Label(column="label", threshold=None, scale=None, soft_weight=None, positive_at=1.0),
        features=features,
        splits=splits,
        counts=Counts(read=total, train=rows, eval=rows // 10, rejected=0, rejected_by_reason={}),
        input=[],
        config={},
        versions={},
    )
    (directory / MANIFEST_NAME).write_text(manifest.to_json())
    return table


def _ids(rng: np.random.Generator, size: int, rows: int, exponent: float) -> npt.NDArray[np.int32]:
    share = np.cumsum((np.arange(size) + 1.0) ** -exponent)
    return np.searchsorted(share, rng.random(rows, dtype=np.float32) * share[-1]).astype(np.int32).clip(max=size - 1)


def _write_split(directory: Path, split: str, table: pa.Table) -> Split:
    (directory / split).mkdir(parents=True)
    starts = range(0, len(table), ROWS_PER_SHARD)
    shards = []
    for index, start in enumerate(starts):
        part, text = table.slice(start, ROWS_PER_SHARD), pa.BufferOutputStream()
        pa.csv.write_csv(part, text, pa.csv.WriteOptions(include_header=False))
        data = igzip.compress(text.getvalue(), 1)
        path = shard_name(split, index, len(starts))
        (directory / path).write_bytes(data)
        shards.append(Shard(path=path, rows=len(part), bytes=len(data), crc32=zlib.crc32(data)))
    positive = int(np.sum(table["label"].to_numpy()))
    return Split(rows=len(table), positive_rows=positive, label_mean=positive / len(table), shards=shards)


if __name__ == "__main__":
    train_rows = write_dataset(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
    if len(sys.argv) > 5:
        np.savez(sys.argv[5], **{name: train_rows[name].to_numpy() for name in train_rows.column_names})
    print(json.dumps({"rows": len(train_rows)}))
