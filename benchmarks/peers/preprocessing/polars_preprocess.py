"""Preprocesses with a script as one would write it for one machine: all rows in memory.

Arguments: log, directory, and the threshold of a log of clicks, or `movielens` for the work of that configuration:
labels that blend the rating on its scale with whether it reaches 4, and the timestamp beside them.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
from isal import igzip

ROWS_PER_SHARD = 1_000_000

log, directory = sys.argv[1], Path(sys.argv[2])
rated = sys.argv[3] == "movielens"
threshold = 2 if rated else int(sys.argv[3])
value = "rating" if rated else "clicked"
begin = time.perf_counter()
directory.mkdir(parents=True, exist_ok=True)
rows = pl.read_csv(
    log,
    columns=["userId", "movieId", value, *(["timestamp"] if rated else [])],
    schema_overrides={"userId": pl.Int64, "movieId": pl.Int64, value: pl.Float32},
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
if rated:
    soft = (rows["rating"] - 0.5) / 4.5
    assert soft.is_between(0, 1).all(), "a rating is not on its scale"
    encoded["rating"] = (0.8 * soft + 0.2 * (rows["rating"] >= 4.0).cast(pl.Float32)).cast(pl.Float32)
    encoded["timestamp"] = rows["timestamp"]
else:
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
