"""Makes a large vocabulary and looks tokens up, by a table and by a join, on a worker that is limited in memory.

    python benchmarks/preprocessing/limited_worker.py
    python benchmarks/preprocessing/limited_worker.py --tokens 50000000 --limit_mib 2048

Each step of the job is called as a worker calls it, element by element, in a process with a limit on its data; files
take the place of the service that keeps elements between the steps. Beam's in-process runner cannot show this, since it
is that service too. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

# So that `harness`, which all benchmarks share, is found.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.measure import machine, python, run

# As a log of 256 MiB for each partition has them.
TOKENS_PER_PARTITION = 1_000_000
ROWS_PER_BATCH = 300_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=20_000_000)
    parser.add_argument("--limit_mib", type=int, default=2048)
    options = parser.parse_args()
    print(f"{machine()}; {options.tokens:,} int64 tokens\n")
    print("| lookup | limit, MiB | peak, MiB | CPU s | digest of the files |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        run(python("preprocessing/limited_worker.py", "--step", "count", directory, str(options.tokens)))
        for limit in (0, options.limit_mib):
            for lookup in ("table", "join"):
                step = ("--step", lookup, directory, str(limit))
                try:
                    done = run(python("preprocessing/limited_worker.py", *step))
                except RuntimeError:
                    print(f"| `{lookup}` | {limit} | out of memory | | |", flush=True)
                    continue
                peak, digest = done.peak_gib * 1024, done.said["digest"]
                print(f"| `{lookup}` | {limit or ''} | {peak:,.0f} | {done.cpu_seconds:.0f} | {digest} |", flush=True)


def count(directory: str, tokens: str) -> None:
    """Writes partitions of (token, count): half of the tokens occur once, as in the tail of a log."""
    import numpy as np

    from pipeline.vocabulary.frequency import _pairs, partitions

    number = -(-int(tokens) // TOKENS_PER_PARTITION)
    draws = np.random.default_rng(0)
    kept = Elements(directory, "counted")
    for start in range(0, int(tokens), TOKENS_PER_PARTITION):
        ids = np.arange(start, min(start + TOKENS_PER_PARTITION, int(tokens))) * 7919
        kept.add(partitions(_pairs(ids, draws.zipf(1.6, len(ids)), "int64"), number))
    print("{}")


def table(directory: str, limit: str) -> None:
    import tensorflow as tf

    from pipeline.vocabulary.frequency import FrequencyVocabulary

    with tempfile.TemporaryDirectory() as out:
        vocabulary = _vocabulary(FrequencyVocabulary, out, directory)
        _limit(limit)
        counted = Elements(directory, "counted")
        vocabulary._write((0, (data for key in counted.keys for data in counted.of(key))), 1)
        path = tf.lookup.TextFileIndex
        lines = tf.lookup.TextFileInitializer(f"{out}/tokens", tf.int64, path.WHOLE_LINE, tf.int64, path.LINE_NUMBER)
        tf.lookup.StaticVocabularyTable(lines, 1, lookup_key_dtype=tf.int64)
        _print_digest(out)


def join(directory: str, limit: str) -> None:
    import numpy as np
    import pyarrow as pa
    import tensorflow  # noqa: F401  # A worker has it, and its memory.

    from pipeline.vocabulary import sorted_ranges
    from pipeline.vocabulary.frequency import deserialize, serialize
    from pipeline.vocabulary.join_indices import answer

    with tempfile.TemporaryDirectory() as out:
        vocabulary = _vocabulary(sorted_ranges.SortedVocabulary, out, directory)
        _limit(limit)
        counted, in_order, cut, ranges, indices = (
            Elements(of, kind)
            for of, kind in ((directory, "counted"), (out, "sorted"), (out, "cut"), (out, "ranges"), (out, "indices"))
        )
        num_ranges = sorted_ranges.num_join_partitions(len(counted.keys))
        for key in counted.keys:
            in_order.add([(key, sorted_ranges.in_frequency_order(counted.of(key)))])
        size = sorted_ranges.SAMPLE // len(counted.keys) or 1
        samples = [sorted_ranges.sample(next(in_order.of(key)), size) for key in in_order.keys]
        for key in in_order.keys:
            cut.add(sorted_ranges.cut(next(in_order.of(key)), samples, num_ranges))
        for key in cut.keys:
            ranges.add([(key, sorted_ranges.in_frequency_order(cut.of(key)))])
        sizes = {key: len(deserialize(next(ranges.of(key)))) for key in ranges.keys}
        parts = []
        for key in ranges.keys:
            numbered = (key, next(ranges.of(key)))
            indices.add(sorted_ranges.number_tokens(numbered, sizes, None, num_ranges))
            parts.append(vocabulary._write_part(numbered, sizes))
        vocabulary._join_parts(len(counted.keys), parts, 1)
        asked = serialize(pa.record_batch({"token": np.arange(ROWS_PER_BATCH) * 7919}))
        for key in indices.keys:
            questions = [((0, offset), asked) for offset in range(10)]
            known = ((None, data) for data in indices.of(key))
            for _ in answer((("user", key), [*questions, *known])):
                pass
        _print_digest(out)


class Elements:
    """Keeps elements by key in files, as the service does between two steps."""

    def __init__(self, directory: str, name: str) -> None:
        self._directory = Path(directory, f"elements.{name}")

    def add(self, elements: Iterable[tuple[int, bytes]]) -> None:
        for key, data in elements:
            of_key = self._directory / str(key)
            of_key.mkdir(parents=True, exist_ok=True)
            (of_key / str(sum(1 for _ in of_key.iterdir()))).write_bytes(data)

    @property
    def keys(self) -> list[int]:
        return sorted(int(path.name) for path in self._directory.iterdir())

    def of(self, key: int) -> Iterator[bytes]:
        for path in (self._directory / str(key)).iterdir():
            yield path.read_bytes()


def _vocabulary(kind, out: str, directory: str):  # type: ignore[no-untyped-def]
    paths = [f"{out}/{name}" for name in ("tokens", "counts", "info")]
    return kind("user", *paths, f"{out}/tmp", "int64", 1, None, len(Elements(directory, "counted").keys))


def _limit(mib: str) -> None:
    if int(mib):
        resource.setrlimit(resource.RLIMIT_DATA, (int(mib) << 20, int(mib) << 20))


def _print_digest(out: str) -> None:
    digest = hashlib.sha256()
    for name in ("tokens", "counts", "info"):
        with open(f"{out}/{name}", "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    print(json.dumps({"digest": digest.hexdigest()[:12]}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        {"count": count, "table": table, "join": join}[sys.argv[2]](*sys.argv[3:])
    else:
        main()
