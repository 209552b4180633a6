"""Trains the model with its tables divided among parameter servers, in real processes on this machine.

    python benchmarks/training/parameter_servers.py
    python benchmarks/training/parameter_servers.py --users 20000000 --servers 1 2 4

`tf.distribute.ParameterServerStrategy` divides each table by rows among the servers. The model is the trainer's, with
its embedding layer and its optimizer, and the loop is Keras', which sends each worker its steps. Batches are drawn
uniformly, so that reading costs nothing; two workers draw the same ones. Prints a table in Markdown: one process alone,
then servers and workers, then one of two workers killed after the first epoch, then a server. "Loss" is the mean
cross-entropy of the last epoch, memory what each process has at its end.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# So that `harness`, which all benchmarks share, is found.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.measure import ROOT, machine, python

ITEMS, BATCH_SIZE, STEPS, EPOCHS, STEPS_IN_A_CALL = 100_000, 8192, 100, 3, 20
GIB = 1 << 30


def serve() -> None:
    """Runs a parameter server or a worker, until it is killed."""
    import tensorflow as tf

    config = json.loads(os.environ["TF_CONFIG"])
    task = config["task"]
    tf.distribute.Server(config["cluster"], task["type"], task["index"], protocol="grpc").join()


def train(users: int, dim: int, servers: int) -> None:
    """Trains, without a cluster if `servers` is 0; prints a JSON object for each epoch."""
    import time

    import numpy as np

    # Before TensorFlow, since it asks for Keras 2.
    from trainer.config import OptimizerConfig, TrainerConfig  # isort: skip

    import tensorflow as tf
    import tensorflow_recommenders as tfrs

    from trainer.model.dot_bias import DotBias
    from trainer.model.optimizers import make_optimizer
    from trainer.model.tables import feature_configs

    class KerasLoop(DotBias):
        """Takes the steps as Keras does, which hands them to the workers of a cluster."""

        def make_train_function(self, force: bool = False) -> Any:
            return tfrs.models.Model.make_train_function(self, force)

    class Tell(tf.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seconds = time.perf_counter() - self.began
            # What Keras hands over is that of one worker.
            (loss,) = (float(m.result()) for m in self.model.metrics if m.name == "label-crossentropy")
            print(json.dumps({"rows_per_second": STEPS * BATCH_SIZE / seconds, "loss": loss}), flush=True)

    rows = {"userId": users, "movieId": ITEMS}

    def batches(context: Any = None) -> tf.data.Dataset:
        def draw(number: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
            ids = {
                name: tf.random.stateless_uniform([BATCH_SIZE], tf.stack([number, size]), 0, size, tf.int32)
                for name, size in rows.items()
            }
            return ids, tf.cast((ids["userId"] * 7 + ids["movieId"] * 11) % 13 > 5, tf.float32)

        return tf.data.Dataset.range(2**40).map(draw, num_parallel_calls=2).prefetch(STEPS_IN_A_CALL)

    strategy, data = tf.distribute.get_strategy(), batches
    if servers:
        cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver(rpc_layer="grpc")
        by_rows = tf.distribute.experimental.partitioners.FixedShardsPartitioner(servers)
        strategy = tf.distribute.ParameterServerStrategy(cluster, variable_partitioner=by_rows)
        data = tf.keras.utils.experimental.DatasetCreator
    config = TrainerConfig(embedding_dim=dim, optimizer=OptimizerConfig(learning_rate=0.01))
    with strategy.scope():
        sides = {"userId": "user", "movieId": "item"}
        model = KerasLoop(sides, feature_configs(rows, config), initial_bias=0.0, positive_at=1.0)
        model.compile(optimizer=make_optimizer(config.optimizer), steps_per_execution=STEPS_IN_A_CALL)
    # The same values in whole tables and in parts of them.
    for table in model.tables.values():
        generator = np.random.default_rng(table.shape[0])
        for part in getattr(table, "variables", [table]):
            part.assign(generator.normal(0, config.initial_stddev, part.shape).astype(np.float32))
    model.fit(
        data(batches) if servers else batches(),
        steps_per_epoch=STEPS,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[Tell()],
    )


def run(options: argparse.Namespace, servers: int, workers: int, lose: str = "") -> list[str]:
    """Trains with some processes; kills the last one of the type `lose` after an epoch. Returns cells of the table."""
    arguments = [str(options.users), str(options.dim), str(servers)]
    addresses = iter(_addresses(1 + servers + workers))
    counts = {"chief": 1, "ps": servers, "worker": workers}
    cluster = {name: [next(addresses) for _ in range(count)] for name, count in counts.items() if count}
    processes = {}
    for name, of_type in reversed(cluster.items()):
        for index in range(len(of_type)):
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
            environment["CUDA_VISIBLE_DEVICES"] = ""
            if servers:
                task = {"type": name, "index": index}
                environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
            role = ["--train", *arguments] if name == "chief" else ["--serve"]
            processes[name, index] = subprocess.Popen(
                python("training/parameter_servers.py", *role),
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if name == "chief" else subprocess.DEVNULL,
                text=True,
            )
    chief = processes["chief", 0]
    assert chief.stdout is not None and chief.stderr is not None
    said: list[dict[str, float]] = []
    memory: dict[str, list[float]] = {}
    try:
        for line in chief.stdout:
            said.append(json.loads(line))
            if lose and len(said) == 1:
                processes[lose, len(cluster[lose]) - 1].send_signal(signal.SIGKILL)
            if len(said) == EPOCHS:
                for (name, _), process in processes.items():
                    memory.setdefault(name, []).append(_gib(process.pid))
        errors = chief.stderr.read()
        code = chief.wait()
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    if code:
        reason = [line for line in errors.splitlines() if "Error" in line][-1:] or ["no message"]
        return [f"ends after epoch {len(said)}: {reason[0][:120]}", "", "", "", ""]
    held = [" and ".join(f"{gib:.2f}" for gib in memory.get(name, [])) for name in counts]
    return [f"{said[-1]['rows_per_second']:,.0f}", f"{said[-1]['loss']:.6f}", *held]


def _addresses(number: int) -> list[str]:
    sockets = [socket.create_server(("localhost", 0)) for _ in range(number)]
    addresses = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def _gib(process: int) -> float:
    """Reads the memory of a process that may have ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0.0
    return next((int(line.split()[1]) / (1 << 20) for line in lines if line.startswith("VmRSS:")), 0.0)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=5_000_000)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--servers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args(arguments)
    most = max(options.servers)
    state = 12 * options.dim * (options.users + ITEMS) / GIB
    print(f"{machine()}; {options.users:,} users, {ITEMS:,} items, {options.dim} units: {state:.2f} GiB of state\n")
    print("| | rows/s | loss | chief, GiB | servers, GiB | workers, GiB |\n|---|---|---|---|---|---|")
    cases = [("one process", 0, 0, "")]
    cases += [(f"{servers} server{'s' * (servers > 1)}, 1 worker", servers, 1, "") for servers in options.servers]
    cases += [(f"{most} servers, 2 workers", most, 2, "")]
    cases += [(f"the same, a {name} killed", most, 2, kind) for name, kind in (("worker", "worker"), ("server", "ps"))]
    for name, servers, workers, lose in cases:
        print(f"| {name} | {' | '.join(run(options, servers, workers, lose))} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(*map(int, sys.argv[2:]))
    elif sys.argv[1:] == ["--serve"]:
        serve()
    else:
        main(sys.argv[1:])
