"""Writes a small dataset directory from arrays, without the pipeline."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

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
    usual_name,
    vocabulary_name,
)

Rows = Mapping[str, Sequence[Any]]


def write_dataset(
    directory: Path,
    train: Rows,
    evaluation: Rows,
    sides: Mapping[str, str],
    *,
    hashed: Sequence[str] = (),
    frequency_threshold: int = 1,
    num_oov_buckets: int = 1,
    rows_per_shard: int = 100,
    positive_at: float = 1.0,
) -> DatasetManifest:
    """Writes a dataset from columns by name: raw tokens by feature, and `label`; `sides` orders the features."""
    features = {}
    encoded: dict[str, dict[str, list[Any]]] = {"train": {}, "eval": {}}
    for name, side in sides.items():
        tokens = list(train[name])
        dtype = "string" if isinstance([*tokens, *evaluation[name]][0], str) else "int64"
        if name in hashed:
            features[name] = Feature(side=side, encoding="hashing", token_dtype=dtype)
            encoded["train"][name], encoded["eval"][name] = tokens, list(evaluation[name])
            continue
        counts = {t: c for t, c in Counter(tokens).items() if c >= frequency_threshold}
        vocabulary = sorted(counts, key=lambda t: (-counts[t], t))
        (directory / "vocabulary").mkdir(parents=True, exist_ok=True)
        (directory / vocabulary_name(name)).write_text("".join(f"{t}\n" for t in vocabulary))
        (directory / counts_name(name)).write_text("".join(f"{counts[t]}\n" for t in vocabulary))
        index = {t: i for i, t in enumerate(vocabulary)}
        for split, rows in (("train", train), ("eval", evaluation)):
            known = [t in index for t in rows[name]]
            oov = len(vocabulary) + tf.strings.to_hash_bucket_fast([str(t) for t in rows[name]], num_oov_buckets)
            encoded[split][name] = [
                index[t] if k else int(o) for t, k, o in zip(rows[name], known, oov.numpy(), strict=True)
            ]
        oov_rows = {split: sum(i >= len(vocabulary) for i in encoded[split][name]) for split in ("train", "eval")}
        features[name] = Feature(
            side=side,
            encoding="vocabulary",
            token_dtype=dtype,
            vocabulary_size=len(vocabulary),
            num_oov_buckets=num_oov_buckets,
            vocabulary_path=vocabulary_name(name),
            counts_path=counts_name(name),
            fingerprint="",
            oov_rows=oov_rows,
        )
    for side in ("user", "item"):
        names = [name for name in sides if sides[name] == side]
        if len(names) > 1 and names[0] not in hashed:
            for name, path in _write_usual(directory, train, names).items():
                features[name] = features[name].model_copy(update={"usual_path": path})
    splits = {}
    for split, rows in (("train", train), ("eval", evaluation)):
        label = np.asarray(rows["label"], np.float32)
        columns = [*encoded[split].values(), [f"{x:.9g}" for x in label.tolist()]]
        splits[split] = Split(
            rows=len(label),
            positive_rows=int((label >= np.float32(positive_at)).sum()),
            label_mean=float(label.mean()) if len(label) else None,
            shards=_write_shards(directory, split, list(zip(*columns, strict=True)), rows_per_shard),
        )
    manifest = DatasetManifest(
        columns=[
            *(
                Column(name=n, dtype=f.token_dtype if n in hashed else "int64", role="feature")
                for n, f in features.items()
            ),
            Column(name="label", dtype="float32", role="label"),
        ],
        label=Label(column="label", threshold=None, scale=None, soft_weight=1.0, positive_at=positive_at),
        features=features,
        splits=splits,
        counts=Counts(
            read=splits["train"].rows + splits["eval"].rows,
            train=splits["train"].rows,
            eval=splits["eval"].rows,
            rejected=0,
            rejected_by_reason={},
        ),
        input=[],
        config={},
        versions={},
    )
    (directory / MANIFEST_NAME).write_text(manifest.to_json())
    return manifest


def _write_usual(directory: Path, rows: Rows, names: Sequence[str]) -> dict[str, str]:
    """Writes what each token of the vocabulary of the first name has in most rows; returns the paths by feature."""
    counts = Counter(zip(*([str(t) for t in rows[name]] for name in names), strict=True))
    usual: dict[str, tuple[str, ...]] = {}
    for combination in sorted(counts, key=lambda c: (-counts[c], c)):
        usual.setdefault(combination[0], combination[1:])
    vocabulary = (directory / vocabulary_name(names[0])).read_text().splitlines()
    paths = {}
    for number, name in enumerate(names[1:]):
        paths[name] = usual_name(name)
        (directory / paths[name]).parent.mkdir(exist_ok=True)
        (directory / paths[name]).write_text("".join(f"{usual[token][number]}\n" for token in vocabulary))
    return paths


def write_shard(path: Path, rows: Sequence[Sequence[Any]]) -> tuple[int, int]:
    """Returns bytes and CRC-32 of the compressed file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    data = gzip.compress(text.getvalue().encode(), mtime=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return len(data), zlib.crc32(data)


def _write_shards(directory: Path, split: str, rows: Sequence[Sequence[Any]], rows_per_shard: int) -> list[Shard]:
    starts = range(0, len(rows), rows_per_shard)
    shards = []
    for index, start in enumerate(starts):
        path = shard_name(split, index, len(starts))
        part = rows[start : start + rows_per_shard]
        size, crc32 = write_shard(directory / path, part)
        shards.append(Shard(path=path, rows=len(part), bytes=size, crc32=crc32))
    return shards
