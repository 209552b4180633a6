"""Measures what a first user waits for: the whole command, from a log to the report, and the same command again.

    python benchmarks/first_run.py --input ratings.csv

The file is a MovieLens log. The sample, which needs no file, is measured too. Prints a table in Markdown: medians of
whole processes, each in an empty directory. The seconds of the stages are those that the command prints; the rest is
its start and its end.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from harness.measure import Measured, machine, median, python, run

STAGES = ("generate", "preprocess", "train", "evaluate", "report", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, help="a MovieLens log; without it, the sample alone is measured")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    logs = {"the sample": []}
    if options.input:
        logs[options.input.name] = ["--config", "movielens", "--input", str(options.input.resolve())]

    results: dict[tuple[str, str], list[Measured]] = {}
    for _ in range(options.repeats):
        for name, arguments in logs.items():
            with tempfile.TemporaryDirectory() as directory:
                for start in ("first start", "again"):
                    measured = run(python("peers/whole_command.py", directory, *arguments))
                    results.setdefault((name, start), []).append(measured)

    print(f"{machine()}; medians of {options.repeats}\n")
    print("|", " | ".join(["log", "", "whole, s", "CPU s", *STAGES, "rest", "peak, GiB"]), "|")
    print("|---" * (6 + len(STAGES)), "|", sep="")
    for (name, start), runs in results.items():
        stages = {stage: median([m.said["seconds"].get(stage, 0.0) for m in runs]) for stage in STAGES}
        rest = median([m.seconds - sum(m.said["seconds"].values()) for m in runs])
        times = [median([m.seconds for m in runs]), median([m.cpu_seconds for m in runs]), *stages.values(), rest]
        cells = [f"{seconds:.1f}" for seconds in times]
        print(f"| {name} | {start} |", " | ".join(cells), f"| {median([m.peak_gib for m in runs]):.2f} |")


if __name__ == "__main__":
    main()
