"""Compares this trainer with the usual Keras loop, TFRS as in its tutorials, and PyTorch with its rows in memory.

    python benchmarks/train.py --rows 25000000 --users 162541 --items 59047
    python benchmarks/train.py --table_sizes 162541 5000000 20000000 --rows 5000000 --peers dotbias
    python benchmarks/train.py --device gpu --batch_size 65536 --peers dotbias memory torch

Prints a table in Markdown: medians of steady speeds, run in turn, imports and compilation left out. PyTorch gets an
environment of its own, made on first use in --torch_env. The Keras loop updates whole tables at every step, so it gets
a fiftieth of the steps.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from harness.environments import peer_environment
from harness.measure import Measured, in_turn, machine, median, python, run

PEERS = {
    "dotbias": "this trainer, from gzip shards, all metrics",
    "memory": "the same, `cache: memory`, from the second epoch on",
    "disk": "the same, `cache: disk`, from the second epoch on",
    "deterministic": "the same, `deterministic: true`",
    "softmax": "the same, `objective: softmax`, 512 candidates",
    "torch": "PyTorch, SparseAdam, rows in memory, no metrics",
    "tfrs": "TFRS as in its tutorials, Adagrad, the usual reader",
    "keras": "the usual Keras loop, `legacy.Adam`, the usual reader",
}
# TFRS and Keras as in their tutorials have no other.
BATCH_SIZE = 8192
# Options of this trainer in its lines of the table.
OPTIONS = {
    "dotbias": [],
    "memory": ["cache=memory"],
    "disk": ["cache=disk"],
    "deterministic": ["deterministic=true"],
    "softmax": ["objective=softmax"],
}
# The share of an epoch that each peer trains.
SHARE = {"torch": 1, "tfrs": 0.1, "keras": 0.02}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=25_000_000)
    parser.add_argument("--users", type=int, default=162_541)
    parser.add_argument("--items", type=int, default=59_047)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--batch_size", type=int, default=BATCH_SIZE)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--table_sizes", type=int, nargs="+", help="numbers of users to compare, instead of --users")
    parser.add_argument("--torch_env", type=Path, default=Path(tempfile.gettempdir(), "dotbias-torch"))
    options = parser.parse_args()

    if (options.batch_size, options.device) != (BATCH_SIZE, "cpu") and {"tfrs", "keras"} & set(options.peers):
        parser.error(f"the peers tfrs and keras train batches of {BATCH_SIZE} on the CPU; leave them out with --peers")
    sizes = options.table_sizes or [options.users]
    with tempfile.TemporaryDirectory() as directory:
        commands = {}
        for users in sizes:
            for peer in options.peers:
                name = f"{PEERS[peer]}, {users:,} users" if len(sizes) > 1 else PEERS[peer]
                commands[name] = command(peer, options, users, Path(directory))
        results = in_turn(commands, options.repeats)
    print(f"{options.rows:,} rows, {options.items:,} items, dimension {options.dim}, batch {options.batch_size}")
    print(f"{machine()}; {options.device}; medians of {options.repeats}\n")
    print_table(results)


def command(peer: str, options: argparse.Namespace, users: int, directory: Path) -> list[str]:
    """Returns the command of one peer, and writes the files that it reads unless they exist."""
    dataset = directory / f"dataset-{users}"
    columns = directory / f"columns-{users}.npz"
    if not dataset.exists():
        run(python("harness/write_shards.py", *map(str, (dataset, options.rows, users, options.items, columns))))
    if peer in OPTIONS:
        model = directory / f"model-{users}"
        chosen = [f"batch_size={options.batch_size}", f"strategy={options.device}", *OPTIONS[peer]]
        return python("peers/dotbias_train.py", str(dataset), str(model), str(options.dim), *chosen)
    steps = max(int(options.rows // options.batch_size * SHARE[peer]), 10)
    sizes = [str(n) for n in (steps, users, options.items, options.dim)]
    if peer != "torch":
        return python(f"peers/{peer}_train.py", str(dataset), *sizes)
    script = str(Path(__file__).parent / "peers" / "torch_train.py")
    of_torch = [str(options.batch_size), "cuda" if options.device == "gpu" else "cpu"]
    return [str(peer_environment(options.torch_env, ("torch", "numpy"))), script, str(columns), *sizes, *of_torch]


def print_table(results: dict[str, list[Measured]]) -> None:
    columns = ["", "million rows/s", "CPU s per million rows", "peak, GiB", "speed / first line"]
    print("|", " | ".join(columns), "|")
    print("|---" * len(columns) + "|")
    first = None
    for name, measured in results.items():
        speed = median([m.said["rows_per_second"] for m in measured]) / 1e6
        first = first or speed
        cpu = median([m.said["cpu_seconds_per_million"] for m in measured])
        peak = median([m.peak_gib for m in measured])
        print(f"| {name} | {speed:.3f} | {cpu:.2f} | {peak:.2f} | {speed / first:.3f} |")


if __name__ == "__main__":
    main()
