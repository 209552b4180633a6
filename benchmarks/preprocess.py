"""Compares this job with stock TFT, a Polars script and a row-by-row Beam job, on the same generated log.

    python benchmarks/preprocess.py --rows 25000000 --users 162541 --items 59047
    python benchmarks/preprocess.py --rows 20000000 --users 30000000 --items 59047 --exponent 0.5 --threshold 1 \\
        --peers dotbias

Prints a table in Markdown: medians of whole processes run in turn, and ratios to the Polars script. `naive` gets a
fiftieth of the rows, because it would take hours; its time is not scaled up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.measure import ROOT, in_turn, machine, median, python

PEERS = {
    "dotbias": "this job",
    "polars": "Polars script (same work, one machine, all in memory)",
    "tft": "stock TFT, large Arrow batches (no shuffle, no shards)",
    "naive": "Beam, a row an element, `WriteToText`",
}
NAIVE_FRACTION = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=25_000_000)
    parser.add_argument("--users", type=int, default=162_541)
    parser.add_argument("--items", type=int, default=59_047)
    parser.add_argument("--exponent", type=float, default=0.8, help="of the popularity's power law")
    parser.add_argument("--threshold", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as directory:
        log = generate(options, options.rows, Path(directory) / "log.csv")
        commands = {
            name: python(
                f"peers/preprocessing/{name}_preprocess.py", str(log), f"{directory}/{name}", str(options.threshold)
            )
            for name in options.peers
        }
        rows = dict.fromkeys(commands, options.rows)
        if "naive" in commands:
            rows["naive"] = options.rows // NAIVE_FRACTION
            small = generate(options, rows["naive"], Path(directory) / "small.csv")
            commands["naive"][2] = str(small)
        results = in_turn(commands, options.repeats)

    print(f"{options.rows:,} rows, {options.users:,} users, {options.items:,} items, threshold {options.threshold}")
    print(f"{machine()}; medians of {options.repeats}\n")
    columns = ["", "rows", "pipeline alone, s", "whole process, s", "million rows/s", "CPU s", "peak, GiB"]
    print("|", " | ".join([*columns, "alone / Polars", "whole / Polars"]), "|")
    print("|---|---|---|---|---|---|---|---|---|")
    polars = median([m.seconds for m in results["polars"]]) if "polars" in results else None
    for name, measured in results.items():
        whole = median([m.seconds for m in measured])
        alone = median([m.said["seconds"] for m in measured])
        same = polars is not None and rows[name] == options.rows
        ratios = [f"{seconds / polars:.2f}" if same and polars else "" for seconds in (alone, whole)]
        print(
            f"| {PEERS[name]} | {rows[name]:,} | {alone:.1f} | {whole:.1f} | {rows[name] / whole / 1e6:.2f} "
            f"| {median([m.cpu_seconds for m in measured]):.1f} | {median([m.peak_gib for m in measured]):.2f} "
            f"| {ratios[0]} | {ratios[1]} |"
        )


def generate(options: argparse.Namespace, rows: int, path: Path) -> Path:
    """Writes the log with the project's own generator."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pipeline.sample", "--rows", str(rows), "--users", str(options.users)),
            *("--items", str(options.items), "--exponent", str(options.exponent), "--output", str(path)),
        ],
        check=True,
        stdout=sys.stderr,
        cwd=ROOT,
    )
    return path


if __name__ == "__main__":
    main()
