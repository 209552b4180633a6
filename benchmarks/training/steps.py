"""Measures what it saves to update the metrics once for all steps of a call instead of after each step.

    python benchmarks/training/steps.py
    python benchmarks/training/steps.py --batch_sizes 256 1024 4096 --calls 100

Two models train on the same rows, which are in memory, in turn, call by call. Prints a table in Markdown: medians of
the CPU milliseconds of a step, and the least.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

# So that `harness`, which all benchmarks share, is found.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.measure import machine, python, run

USERS, ITEMS, STEPS = 20_000, 5_000, 32


def measure(dataset: str, batch_size: int, calls: int) -> list[list[float]]:
    """Returns the CPU milliseconds of a step in each call: measured after each step, and together."""
    from trainer.build import compiled_model
    from trainer.config import TrainerConfig
    from trainer.data.dataset import Dataset
    from trainer.data.reader import Shuffle, read_batches
    from trainer.loop.defaults import with_automatic_values

    import tensorflow as tf  # isort: skip, `trainer` comes first, which asks for Keras 2

    config = TrainerConfig.model_validate({"batch_size": batch_size, "steps_per_execution": STEPS})
    data = Dataset.open(dataset, config)
    config = with_automatic_values(config, data)
    batches = list(read_batches(data, "train", batch_size, shuffle=Shuffle(seed=42, epochs=1)).take(STEPS))
    rows = tf.nest.map_structure(lambda *parts: tf.stack(parts), *batches)
    functions = []
    for together in (False, True):
        model = compiled_model(data, config, tf.distribute.get_strategy())
        model.measures_steps_together = together
        iterator = iter(tf.data.Dataset.from_tensor_slices(rows).repeat())
        functions.append((model.make_train_function(), iterator, model))
    times: list[list[float]] = [[], []]
    for _ in range(calls + 1):
        for (train, iterator, _), of_function in zip(functions, times, strict=True):
            began = time.process_time()
            train(iterator)
            of_function.append(1000 * (time.process_time() - began) / STEPS)
    # The first call compiles.
    return [of_function[1:] for of_function in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[256, 1024, 4096, 8192])
    parser.add_argument("--calls", type=int, default=40)
    options = parser.parse_args()
    print(f"{machine()}; dimension 64, {STEPS} steps in a call, medians of {options.calls} calls\n")
    print("| batch | after each step, ms | least | together, ms | least |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        dataset = f"{directory}/dataset"
        rows = STEPS * max(options.batch_sizes)
        run(python("harness/write_shards.py", dataset, str(rows), str(USERS), str(ITEMS)))
        for batch_size in options.batch_sizes:
            measured = measure(dataset, batch_size, options.calls)
            cells = [f"{value:.2f}" for times in measured for value in (statistics.median(times), min(times))]
            print(f"| {batch_size:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
