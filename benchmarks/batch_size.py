"""Measures batch sizes: the eval AUC that each reaches with its automatic learning rate, and the time to an AUC.

    python benchmarks/batch_size.py
    python benchmarks/batch_size.py --fixed_learning_rate
    python benchmarks/batch_size.py --batch_sizes 2048 --epochs 1 --evaluate_every_rows 180000

Prints a table in Markdown. All sizes train on the same generated log, one after the other, `repeats` times with
different seeds.
With --fixed_learning_rate each batch size uses the learning rate of a batch of 256 instead.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.measure import ROOT, machine, median

from trainer.loop.defaults import automatic_learning_rate

# Trainings are timed until they reach this share of the best AUC of all batch sizes.
SHORT_OF_BEST = 0.002


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[256, 1024, 4096, 8192, 16_384, 65_536])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--fixed_learning_rate", action="store_true")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--evaluate_every_rows", type=int)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as directory:
        log, config = Path(directory) / "log.csv", Path(directory) / "config.json"
        sizes = ("--rows", str(options.rows), "--users", str(options.users), "--items", str(options.items))
        call("-m", "pipeline.sample", *sizes, "--output", str(log))
        columns = {"userId": "int64", "movieId": "int64", "clicked": "float32"}
        features = {"userId": {"side": "user"}, "movieId": {"side": "item"}}
        pipeline = {"columns": columns, "label": {"column": "clicked"}, "features": features}
        config.write_text(json.dumps({"pipeline": pipeline, "trainer": {}}))
        run = ("run_pipeline.py", "--config", str(config), "--input", str(log), "--output_root", directory)
        call(*run, "--run_id", "dataset", "--stage", "preprocess")
        dataset = Path(directory, "runs", "dataset", "dataset")
        trained = {
            size: [train(dataset, Path(directory), size, seed, options) for seed in range(options.repeats)]
            for size in options.batch_sizes
        }
    goal = max(median([max(run)[0] for run in runs]) for runs in trained.values()) - SHORT_OF_BEST
    print(f"{options.rows:,} rows, {options.users:,} users, {options.items:,} items, dimension 64")
    print(f"{machine()}; medians of {options.repeats}\n")
    print(f"| batch | learning rate | best eval AUC | epochs to it | seconds to AUC {goal:.4f} | seconds an epoch |")
    print("|---|---|---|---|---|---|")
    for size, runs in trained.items():
        best = [max(run) for run in runs]
        epochs = median([epoch for _, _, epoch in best])
        times = [next((s for auc, s, _ in run if auc >= goal), float("inf")) for run in runs]
        # What is measured first has the compilation.
        spans = [(run[-1][1] - run[0][1], run[-1][2] - run[0][2]) if len(run) > 1 else run[0][1:] for run in runs]
        epoch = median([seconds / of_epochs for seconds, of_epochs in spans])
        reached = f"{median(times):.0f}" if median(times) < float("inf") else "not reached"
        print(
            f"| {size:,} | {learning_rate(size, options):.4f} | {median([of_run[0] for of_run in best]):.4f} "
            f"| {epochs:.3g} | {reached} | {epoch:.1f} |"
        )


def learning_rate(batch_size: int, options: argparse.Namespace) -> float:
    return automatic_learning_rate(256 if options.fixed_learning_rate else batch_size)


def train(
    dataset: Path, directory: Path, batch_size: int, seed: int, options: argparse.Namespace
) -> list[tuple[float, float, float]]:
    """Trains, and returns (eval AUC, seconds since the start, epochs) each time that it is measured."""
    model, config = directory / f"model-{batch_size}-{seed}", directory / "trainer.json"
    rate = {"learning_rate": learning_rate(batch_size, options)}
    trainer = {"refit": False, "seed": seed, "batch_size": batch_size, "optimizer": rate}
    trainer |= {"epochs": options.epochs, "evaluate_every_rows": options.evaluate_every_rows}
    config.write_text(json.dumps({"trainer": trainer}))
    call("-m", "trainer", "--dataset", str(dataset), "--model_dir", str(model), "--config", str(config))
    seconds, curve = 0.0, []
    for epoch in json.loads((model / "metrics.json").read_text())["train"]["epochs"]:
        seconds += epoch["seconds"]
        curve.append((epoch["eval"]["auc"], seconds, epoch["epoch"]))
    print(f"# batch {batch_size}: AUC {max(curve)[0]:.4f}, {seconds:.0f} s", file=sys.stderr)
    return curve


def call(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, cwd=ROOT, stdout=sys.stderr)


if __name__ == "__main__":
    main()
