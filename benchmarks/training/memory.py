"""Measures the peak memory of a whole training, from the tables to the export of the refitted model.

    python benchmarks/training/memory.py                                     5 and 20 million users, 16 units
    python benchmarks/training/memory.py --users 5000000 --dims 64

Trains two epochs with the defaults, in a process of its own for each line, on few rows: what memory depends on is the
tables. "State" is what has to be in memory: tables, the optimizer's slots for them, and the average. The goal is 1.15
times the state and 1 GiB for TensorFlow, batches and shards. "Foreseen" is what the check before a training expects.
Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

# So that `harness`, which all benchmarks share, is found.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.measure import machine, python, run

GIB = 1 << 30
ITEMS = 100_000


def train(dataset: str, dim: str) -> None:
    """Trains, and prints the bytes of the state and those that the check before it expects."""
    from trainer.config import TrainerConfig
    from trainer.data.dataset import Dataset
    from trainer.devices.memory import needed_bytes, table_and_slot_bytes
    from trainer.train import train

    config = TrainerConfig.model_validate({"embedding_dim": int(dim), "epochs": 2, "strategy": "cpu"})
    rows = Dataset.open(dataset, config).table_rows
    with tempfile.TemporaryDirectory() as directory:
        train(dataset, f"{directory}/model", config)
    tables, slots = table_and_slot_bytes(rows, config)
    print(json.dumps({"state": tables + slots + tables, "foreseen": needed_bytes(rows, config)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=[5_000_000, 20_000_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[16])
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    print(f"{machine()}; {options.rows:,} train rows, {ITEMS:,} items\n")
    print("| users | units | state, GiB | goal, GiB | peak, GiB | foreseen, GiB |\n|---|---|---|---|---|---|")
    for users in options.users:
        with tempfile.TemporaryDirectory() as directory:
            dataset = str(Path(directory, "dataset"))
            run(python("harness/write_shards.py", dataset, str(options.rows), str(users), str(ITEMS)))
            for dim in options.dims:
                measured = run(python("training/memory.py", "--train", dataset, str(dim)))
                state, foreseen = (measured.said[name] / GIB for name in ("state", "foreseen"))
                cells = [state, 1.15 * state + 1, measured.peak_gib, foreseen]
                print(f"| {users:,} | {dim} | {' | '.join(f'{cell:.2f}' for cell in cells)} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(*sys.argv[2:])
    else:
        main()
