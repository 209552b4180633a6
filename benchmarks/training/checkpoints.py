"""Measures what checkpoints cost an epoch, written block by block, by TensorFlow, and by it in the background.

    python benchmarks/training/checkpoints.py --users 2000000 --dim 64

Prints a table in Markdown: medians of an epoch's seconds from its second call on, run in turn.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

# So that `harness`, which all benchmarks share, is found.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.measure import in_turn, machine, median, python, run

HOW = {
    "none": "no checkpoint",
    "blocks": "as the trainer does it",
    "whole": "by `tf.train.Checkpoint`",
    "async": "the same in the background",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=6_000_000)
    parser.add_argument("--users", type=int, default=2_000_000)
    parser.add_argument("--items", type=int, default=59_047)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--steps", type=int, default=256, help="between two checkpoints")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        dataset, model = (str(Path(directory) / name) for name in ("dataset", "model"))
        run(python("harness/write_shards.py", dataset, *map(str, (options.rows, options.users, options.items))))
        where = (dataset, model, str(options.dim), str(options.steps))
        commands = {how: python("peers/checkpoint_train.py", *where, how) for how in HOW}
        results = in_turn(commands, options.repeats)

    # Weights and their average, two moments.
    size = (options.users + options.items) * options.dim * 4 * 4 / 1e9
    print(f"Checkpoints of {size:.1f} GB, every {options.steps} steps; {machine()}; medians of {options.repeats}\n")
    print("| | epoch, s | of it standstill, s a checkpoint | CPU s | peak, GiB |\n|---|---|---|---|---|")
    for how, measured in results.items():
        seconds = median([m.said["seconds"] for m in measured])
        still = median([seconds for m in measured for seconds in m.said["standstill"]])
        cpu = median([m.cpu_seconds for m in measured])
        peak = median([m.peak_gib for m in measured])
        print(f"| {HOW[how]} | {seconds:.1f} | {still:.2f} | {cpu:.1f} | {peak:.2f} |")


if __name__ == "__main__":
    main()
