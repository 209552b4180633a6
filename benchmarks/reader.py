"""Compares readers of gzip shards: this one, without and with a cache, the usual one, and Arrow with ISA-L.

    python benchmarks/reader.py --rows 10000000

Prints a table in Markdown: medians of four passes over the train rows, run in turn. The usual reader
only takes its files in another order each time; this one shuffles all rows.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from harness.measure import in_turn, machine, median, python, run

READERS = {
    "dotbias": "this reader, shuffled",
    "memory": "the same, decoded before: `cache: memory`",
    "disk": "the same, decoded before: `cache: disk`",
    "usual": "`TextLineDataset`, `batch`, `map(decode_csv)` in an `interleave`",
    "arrow": "Arrow and ISA-L in threads, whole shards, permuted",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[8192, 256])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        dataset = Path(directory) / "dataset"
        run(python("harness/write_shards.py", str(dataset), str(options.rows), "162541", "59047"))
        commands = {
            (reader, size): python("peers/read.py", reader, str(dataset), str(size))
            for size in options.batch_sizes
            for reader in READERS
            # `arrow` has no batches, so it is measured once.
            if reader != "arrow" or size == options.batch_sizes[0]
        }
        results = in_turn(commands, options.repeats)

    print(f"{options.rows:,} rows in shards of a million; {machine()}; medians of {options.repeats}\n")
    print("| | batch | million rows/s | CPU s per million rows | peak, GiB | this reader / it |")
    print("|---|---|---|---|---|---|")
    for (reader, size), measured in results.items():
        speed = median([m.said["rows_per_second"] for m in measured])
        cpu = median([m.said["cpu_seconds_per_million"] for m in measured])
        peak = median([m.peak_gib for m in measured])
        ours = median([m.said["rows_per_second"] for m in results["dotbias", size]])
        batch = "" if reader == "arrow" else f"{size:,}"
        print(f"| {READERS[reader]} | {batch} | {speed / 1e6:.2f} | {cpu:.3f} | {peak:.2f} | {ours / speed:.2f} |")


if __name__ == "__main__":
    main()
