"""Preprocesses with a script as one would write it for one machine: all rows in memory.

Arguments: log, directory, threshold."""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
from isal import igzip

ROWS_PER_SHARD = 1_000_000

log, directory, threshold = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
begin = time.perf_counter()
directory.mkdir(parents=True, exist_ok=True)
rows = pl.read_csv(
    log,
    columns=["userId", "movieId", "clicked"],
    schema_overrides={"userId": pl.Int64, "movieId": pl.Int64, "clicked": pl.Float32},
)
random = np.random.default_rng(42)
in_eval = pl.Series(random.random(len(rows)) < 0.1)
encoded = {}
for name in ("userId", "movieId"):
    counts = rows[name].filter(~in_eval).value_counts().filter(pl.col("count") >= threshold)
    vocabulary = counts.sort("count", name, descending=[True, False])
    vocabulary.write_csv(directory / f"{name}.csv")
    indices = vocabulary.select(name).with_row_index("index")
    encoded[name] = (
        rows.select(name)
        .join(indices, on=name, how="left", maintain_order="left")["index"]
        .fill_null(len(vocabulary))
        .cast(pl.Int32)
    )
encoded["clicked"] = rows["clicked"]
rows = pl.DataFrame(encoded)


def write(name: str, shard: pl.DataFrame) -> None:
    text = shard.write_csv(include_header=False).encode()
    (directory / name).write_bytes(igzip.compress(text, 1))


with ThreadPoolExecutor(2) as pool:
    for split, part in (("train", rows.filter(~in_eval)), ("eval", rows.filter(in_eval))):
        shuffled = part.sample(fraction=1, shuffle=True, seed=42)
        for index, start in enumerate(range(0, len(shuffled), ROWS_PER_SHARD)):
            pool.submit(write, f"{split}-{index:05d}.csv.gz", shuffled[start : start + ROWS_PER_SHARD])
print(json.dumps({"seconds": time.perf_counter() - begin, "rows": len(rows)}))
