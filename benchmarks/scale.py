"""Measures the constants of `pipeline.planning.sizing`: memory and time by vocabulary size, time by shuffle messages.

    python benchmarks/scale.py

Prints a table in Markdown. Memory is that of a process of its own for each line.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from harness.measure import machine, python, run

TOKENS = 5_000_000
ROWS = 300_000


def main() -> None:
    if len(sys.argv) > 1:
        print(
            json.dumps(
                {"write": write, "table": table, "messages": messages, "again": again}[sys.argv[1]](*sys.argv[2:])
            )
        )
        return
    print(f"{machine()}; {TOKENS:,} tokens, batches of {ROWS:,} rows\n")
    print("| step | MiB per million | CPU s per million |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        for kind in ("int64", "string"):
            for step, what in (("write", "last step of a vocabulary"), ("table", "TensorFlow's lookup table")):
                said = run(python("scale.py", step, kind, directory)).said
                print(f"| {what}, {kind} tokens | {said['mib']:.0f} | {said['cpu']:.2f} |")
    for shards in (5000, 50_000):
        said = run(python("scale.py", "messages", str(shards))).said
        print(f"| messages of the shuffle, {shards:,} shards | {said['mib']:.0f} | {said['cpu']:.1f} |")
    said = run(python("scale.py", "again", "1000")).said
    print(f"| rows of the shuffle's second step, 1,000 shards | {said['mib']:.0f} | {said['cpu']:.2f} |")


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def now_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def write(kind: str, directory: str) -> dict[str, float]:
    import numpy as np
    import pyarrow as pa

    from pipeline.rows.token_hash import TOKEN_TYPES
    from pipeline.vocabulary.frequency import FrequencyVocabulary, _pairs, serialize

    assert kind in TOKEN_TYPES
    messages = []
    for part in range(10):
        ids = np.arange(part, TOKENS * 10, 10)[: TOKENS // 10] * 7919
        tokens = pa.array(ids) if kind == "int64" else pa.array([b"user_%012d" % token for token in ids])
        counts = np.random.default_rng(part).integers(1, 9, len(ids))
        messages.append(serialize(_pairs(tokens, counts, kind)))  # type: ignore[arg-type]
        del tokens, ids, counts
    before = now_mib() - sum(map(len, messages)) / 2**20
    paths = [f"{directory}/{kind}.{name}" for name in ("txt", "counts", "info")]
    vocabulary = FrequencyVocabulary("user", *paths, f"{directory}/tmp", kind, 1, None, 1)  # type: ignore[arg-type]
    begin = time.process_time()
    vocabulary._write((0, messages), 1)
    return {"mib": (peak_mib() - before) / TOKENS * 1e6, "cpu": (time.process_time() - begin) / TOKENS * 1e6}


def table(kind: str, directory: str) -> dict[str, float]:
    import tensorflow as tf

    before, begin = now_mib(), time.process_time()
    dtype = tf.as_dtype(kind)
    lines = tf.lookup.TextFileInitializer(
        f"{directory}/{kind}.txt",
        dtype,
        tf.lookup.TextFileIndex.WHOLE_LINE,
        tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    _held = tf.lookup.StaticVocabularyTable(lines, 1, lookup_key_dtype=dtype)
    return {"mib": (now_mib() - before) / TOKENS * 1e6, "cpu": (time.process_time() - begin) / TOKENS * 1e6}


def messages(shards: str) -> dict[str, float]:
    import numpy as np
    import pyarrow as pa

    from pipeline.beam.messages import gather, scatter

    draws = np.random.default_rng(0)
    columns = {"user": draws.integers(0, 9, ROWS), "item": draws.integers(0, 9, ROWS)}
    rows = pa.record_batch({**{k: v.astype(np.int32) for k, v in columns.items()}, "label": draws.random(ROWS)})

    def through(keys: np.ndarray) -> tuple[float, int, int]:
        begin = time.process_time()
        made = list(scatter(rows, keys, 0, 0))
        gather([message for _, message in made], rows.schema)
        return time.process_time() - begin, len(made), sum(len(message) for _, message in made)

    one, _, payload = through(np.zeros(ROWS, np.int32))
    many, count, size = through(draws.integers(0, int(shards), ROWS).astype(np.int32))
    return {"mib": (size - payload) / count * 1e6 / 2**20, "cpu": (many - one) / count * 1e6}


def again(shards: str) -> dict[str, float]:
    """Measures what the step from groups to their shards adds: bytes sent, and CPU time."""
    import numpy as np
    import pyarrow as pa

    from pipeline.beam.messages import scatter, scatter_again
    from pipeline.output.fan_out import group_width

    draws, batches = np.random.default_rng(0), 20
    groups: dict[int, list[bytes]] = {}
    for number in range(batches):
        drawn = draws.integers(0, int(shards), ROWS).astype(np.int32)
        ids = {
            name: draws.integers(0, most, ROWS).astype(np.int32) for name, most in (("user", 10**6), ("item", 10**5))
        }
        labels = (draws.integers(1, 11, ROWS) / 10).astype(np.float32)
        rows = pa.record_batch({**ids, "label": labels, "shard": drawn})
        for group, message in scatter(rows, drawn // group_width(int(shards)), 0, number):
            groups.setdefault(group, []).append(message)
    sent, begin = 0, time.process_time()
    for messages_of_group in groups.values():
        sent += sum(len(message) for _, message in scatter_again(messages_of_group, rows.schema, "shard", ROWS))
    millions = batches * ROWS / 1e6
    return {"mib": sent / millions / 2**20, "cpu": (time.process_time() - begin) / millions}


if __name__ == "__main__":
    main()
