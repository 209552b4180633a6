"""Compares this job with stock TFT, a Polars script and a row-by-row Beam job, on the same generated log.

    python benchmarks/preprocess.py --rows 25000000 --users 162541 --items 59047
    python benchmarks/preprocess.py --peers command movielens polars_movielens
    python benchmarks/preprocess.py --rows 20000000 --users 30000000 --items 59047 --exponent 0.5 --threshold 1 \\
        --peers dotbias

Prints a table in Markdown: medians of whole processes run in turn, and ratios to the Polars script for the same work.
`command`, `movielens` and `polars_movielens` do what `configs/movielens.yaml` asks for, on ratings with timestamps:
blended labels, and the timestamp kept. The others do the least: they keep ids and clicks. `naive` gets a fiftieth of
the rows, because it would take hours; its time is not scaled up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.measure import ROOT, in_turn, machine, median, python
from harness.ratings_log import write_ratings

PEERS = {
    "command": "`dotbias preprocess --config movielens`; alone: with imports",
    "movielens": "the same job, called from Python",
    "polars_movielens": "Polars script for the same work",
    "dotbias": "this job",
    "polars": "Polars script (same work, one machine, all in memory)",
    "tft": "stock TFT, large Arrow batches (no shuffle, no shards)",
    "naive": "Beam, a row an element, `WriteToText`",
}
# The scripts of peers that get ratings and the name of a configuration; others have a script of their own name.
OF_RATINGS = {"command": "command", "movielens": "dotbias", "polars_movielens": "polars"}
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
        if set(options.peers) & set(OF_RATINGS):
            ratings = write_ratings(log, Path(directory) / "ratings.csv")
        commands = {}
        for name in options.peers:
            of_ratings = name in OF_RATINGS
            arguments = (str(ratings), "movielens") if of_ratings else (str(log), str(options.threshold))
            script = f"peers/preprocessing/{OF_RATINGS.get(name, name)}_preprocess.py"
            commands[name] = python(script, arguments[0], f"{directory}/{name}", arguments[1])
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
    for name, measured in results.items():
        whole = median([m.seconds for m in measured])
        alone = median([m.said["seconds"] for m in measured])
        peer = results.get("polars_movielens" if name in OF_RATINGS else "polars")
        polars = median([m.seconds for m in peer]) if peer and rows[name] == options.rows else None
        ratios = [f"{seconds / polars:.2f}" if polars else "" for seconds in (alone, whole)]
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
