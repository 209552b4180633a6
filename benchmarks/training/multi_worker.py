"""Measures what two workers on this machine send each other, and the rows that they train a second.

    python benchmarks/training/multi_worker.py                               16 and 64 units, batches of 8192 and 65,536
    unshare -rn sh -c 'ip link set lo up && python benchmarks/training/multi_worker.py'

The bytes are those of the loopback interface while the second epoch is trained, so nothing else may use it: the second
line gives the program an interface of its own. "Computed" are the ids and gradients of the rows of a batch that each
worker sends to the other, 8 bytes an id and 4 a unit. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# So that `harness`, which all benchmarks share, is found.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.measure import ROOT, machine, python, run

USERS, ITEMS = 162_541, 59_047
MIB = 1 << 20


def sent_bytes() -> int:
    """Reads how many bytes the loopback interface has sent."""
    (line,) = (line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[8])


def train(dataset: str, model_dir: str, dim: str, batch_size: str) -> None:
    """Trains two epochs, and prints rows, seconds, CPU seconds and bytes between two reports of the second one."""
    from trainer.config import TrainerConfig
    from trainer.train import train

    options = {"embedding_dim": int(dim), "batch_size": int(batch_size), "epochs": 2, "refit": False}
    # Several calls even of few steps.
    options["steps_per_execution"] = 8
    reports: list[tuple[int, float, float, int]] = []

    def progress(stage: str, done: int, total: int | None, metrics: Any) -> None:
        if metrics["epoch"] == 2:
            reports.append((done, time.perf_counter(), time.process_time(), sent_bytes()))

    train(dataset, model_dir, TrainerConfig.model_validate(options), progress)
    rows, seconds, cpu, sent = (last - first for first, last in zip(reports[0], reports[-1], strict=True))
    print(json.dumps({"rows": rows, "seconds": seconds, "cpu_seconds": cpu, "bytes": sent}))


def on_workers(workers: int, *arguments: str) -> list[dict[str, Any]]:
    """Trains with some processes on this machine; returns what each has printed."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(workers)]
    cluster = {"worker": [f"localhost:{each.getsockname()[1]}" for each in sockets]}
    for each in sockets:
        each.close()
    processes = []
    for index in range(workers):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        if workers > 1:
            environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        command = python("training/multi_worker.py", "--train", *arguments)
        processes.append(
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        )
    outputs = [process.communicate()[0] for process in processes]
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[8192, 65_536])
    options = parser.parse_args()
    print(f"{machine()}; {options.rows:,} train rows, {USERS:,} users, {ITEMS:,} items\n")
    print("| units | batch | workers | rows/s | CPU s per million rows | MiB a step | computed | bytes a row |")
    print("|---" * 8 + "|")
    with tempfile.TemporaryDirectory() as directory:
        dataset = f"{directory}/dataset"
        run(python("harness/write_shards.py", dataset, str(options.rows), str(USERS), str(ITEMS)))
        for dim in options.dims:
            for batch_size in options.batch_sizes:
                for workers in (1, 2):
                    model_dir = f"{directory}/{dim}-{batch_size}-{workers}"
                    chief, *others = on_workers(workers, dataset, model_dir, str(dim), str(batch_size))
                    rows = chief["rows"]
                    cpu = 1e6 * sum(each["cpu_seconds"] for each in (chief, *others)) / rows
                    # Two features; each worker has half of the batch.
                    computed = (workers - 1) * 2 * batch_size * (8 + 4 * dim)
                    sent = chief["bytes"] / rows
                    print(
                        f"| {dim} | {batch_size:,} | {workers} | {rows / chief['seconds']:,.0f} | {cpu:.2f} "
                        f"| {sent * batch_size / MIB:.2f} | {computed / MIB:.2f} | {sent:,.0f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(*sys.argv[2:])
    else:
        main()
