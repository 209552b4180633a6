"""Measures the size of an export and the latency of its signatures, on one core, by the number of items.

    python benchmarks/export/latency.py                              10,000 and 1,000,000 items
    python benchmarks/export/latency.py --items 10000000             needs 12 GiB of memory and 3 GiB of disk

Exports are written from random tables with 100,000 users, without training. A process of its own loads one as a server
does and asks each signature. Prints a table in Markdown. A latency is the CPU time of a call, which is what it takes on
an idle core: the median and the 99th percentile.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# So that `harness`, which all benchmarks share, is found.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.measure import machine, python, run

USERS = 100_000
SEEN = 50
K = 10


def write(directory: Path, items: int, dim: int) -> None:
    """Writes an export of random tables."""
    import numpy as np
    import tensorflow as tf

    from pipeline.manifest import Counts, DatasetManifest, Feature, Label, Split, vocabulary_name
    from trainer.data.dataset import Dataset
    from trainer.output.export import export_model

    features, tables = {}, {}
    rng = np.random.default_rng(0)
    (directory / "dataset" / "vocabulary").mkdir(parents=True)
    for name, side, size in (("userId", "user", USERS), ("itemId", "item", items)):
        path = directory / "dataset" / vocabulary_name(name)
        path.write_bytes(b"".join(b"%d\n" % token for token in range(size)))
        features[name] = Feature(
            side=side,
            encoding="vocabulary",
            token_dtype="int64",
            vocabulary_size=size,
            num_oov_buckets=1,
            vocabulary_path=vocabulary_name(name),
        )
        tables[name] = tf.Variable(rng.standard_normal((size + 1, dim), np.float32) * np.float32(dim**-0.5))
    manifest = DatasetManifest(
        columns=[],
        label=Label(column=None, threshold=None, scale=None, soft_weight=None, positive_at=1.0),
        features=features,
        splits={name: Split(rows=0, positive_rows=0, label_mean=None, shards=[]) for name in ("train", "eval")},
        counts=Counts(read=0, train=0, eval=0, rejected=0, rejected_by_reason={}),
        input=[],
        config={},
        versions={},
    )
    numbers = {"bias": -3.0, "calibration_scale": 1.0, "calibration_offset": 0.0}
    model: Any = SimpleNamespace(tables=tables, **{name: tf.Variable(value) for name, value in numbers.items()})
    begin = time.perf_counter()
    export_model(model, Dataset(str(directory / "dataset"), manifest, {}), str(directory / "export"))
    print(json.dumps({"seconds": time.perf_counter() - begin}))


def ask(export: Path, items: int, seconds: float) -> None:
    """Loads the export and times its signatures, each for `seconds`."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    begin = time.perf_counter()
    model = tf.saved_model.load(str(export))
    load = time.perf_counter() - begin
    rng = np.random.default_rng(1)

    def some(*shape: int) -> tf.Tensor:
        return tf.constant(rng.integers(0, items, shape))

    def users(batch: int) -> tf.Tensor:
        return tf.constant(rng.integers(0, USERS, batch))

    k = tf.constant(K)
    calls = {
        "serving_default, 1 pair": ("serving_default", lambda: {"userId": users(1), "itemId": some(1)}),
        "serving_default, 1,000 pairs": ("serving_default", lambda: {"userId": users(1000), "itemId": some(1000)}),
        "recommend, 1 user": ("recommend", lambda: {"userId": users(1), "exclude": some(1, SEEN), "k": k}),
        "recommend, 100 users": ("recommend", lambda: {"userId": users(100), "exclude": some(100, SEEN), "k": k}),
        "recommend_for_items, 1": ("recommend_for_items", lambda: {"items": some(1, 5), "exclude": some(1, 1), "k": k}),
        "similar_items, 1": ("similar_items", lambda: {"item": some(1), "k": k}),
    }
    told: dict[str, list[float]] = {}
    for name, (signature, inputs) in calls.items():
        serve = model.signatures[signature]
        serve(**inputs())
        times: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 5:
            given = inputs()
            begin = time.process_time()
            serve(**given)
            times.append(1000 * (time.process_time() - begin))
        told[name] = [float(np.median(times)), float(np.percentile(times, 99))]
    print(json.dumps({"load": load, "ms": told}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5, help="for each signature")
    options = parser.parse_args()
    rows: dict[str, list[str]] = {}
    for items in options.items:
        with tempfile.TemporaryDirectory() as scratch:
            written = run(python("export/latency.py", "--write", scratch, str(items), str(options.dim)))
            size = sum(path.stat().st_size for path in Path(scratch, "export").rglob("*") if path.is_file())
            asked = run(python("export/latency.py", "--ask", f"{scratch}/export", str(items), str(options.seconds)))
        cells = {
            "export, MiB": f"{size / 2**20:,.0f}",
            "written in, s": f"{written.said['seconds']:.1f}",
            "memory to write, GiB": f"{written.peak_gib:.1f}",
            "loaded in, s": f"{asked.said['load']:.1f}",
            "memory to serve, GiB": f"{asked.peak_gib:.1f}",
            **{f"{name}, ms": f"{ms[0]:.2f} ({ms[1]:.2f})" for name, ms in asked.said["ms"].items()},
        }
        for name, cell in cells.items():
            rows.setdefault(name, []).append(cell)
    print(f"{machine()}; one core, dim {options.dim}, {SEEN} excluded items a user, k {K}\n")
    print(f"| items | {' | '.join(f'{items:,}' for items in options.items)} |\n|---{'|---' * len(options.items)}|")
    for name, of_row in rows.items():
        print(f"| {name} | {' | '.join(of_row)} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1:2] == ["--ask"]:
        ask(Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    else:
        main()
