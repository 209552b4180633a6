"""Measures the exported model on unseen rows, beside its peers and beside itself without each option.

    python benchmarks/quality.py --input ratings.csv                    # this model, five seeds, the split of the docs
    python benchmarks/quality.py --input ratings.csv --logs movielens few-users sparse --splits 42 1 2 --seeds 1 --peers
    python benchmarks/quality.py --logs sparse dense --tune 30          # and after a search
    python benchmarks/quality.py --input ratings.csv --logs movielens thinned dense --ablation --seeds 1 2

A tenth of the rows is set aside for the test. On the other nine tenths each run preprocesses and trains with the real
command and its own eval split. The test rows are scored once, through the export. Peers (Surprise SVD, tuned on eval
rows, and both models of myFM) get the same rows, in an environment that is made for them.

Prints a table in Markdown: means over the runs with 95 % intervals. "against the first" is the difference in AUC to the
first model of the log, run by run; "AUC of new items" is that of test rows whose item has no train row; "without the
map" is the log loss without the calibration map; ECE is the expected calibration error over deciles of the prediction.
`--results FILE` keeps the scores. What is in the file is not measured again, so a benchmark can be interrupted, and a
later revision need not measure the peers once more.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness.environments import peer_environment
from harness.measure import machine
from harness.quality_logs import Log, logs
from harness.quality_runs import (
    PEER_PACKAGES,
    PEERS,
    auc,
    preprocess,
    score,
    score_peer,
    train,
    train_hashed,
    train_tuned,
)

OURS, TUNED, HASHED = "dotbias", "dotbias, tuned", "dotbias, hashed ids"
# The true probabilities of a generated log: no model can do better.
CEILING = "the truth"
# Changes of the defaults, one at a time.
ABLATIONS: dict[str, dict[str, Any]] = {
    "all defaults": {},
    "without refit": {"refit": False},
    "without rescaling": {"rescale": False},
    "without averaging": {"weight_averaging": 0.0},
    "without L2": {"l2": 0.0},
    "L2 of biases as of the other units": {"bias_l2_factor": 1.0},
    "L2 of biases three times that": {"bias_l2_factor": 3.0},
    "vectors start at 1 / sqrt(dim)": {"initial_stddev": 0.125},
    "dim 16": {"embedding_dim": 16},
    "batch 256": {"batch_size": 256},
    "batch 8192, its learning rate": {"batch_size": 8192},
    "batch 8192, the learning rate of 256": {"batch_size": 8192, "optimizer": {"learning_rate": 0.003}},
    "Adam": {"optimizer": {"name": "adam"}},
    "row-wise Adam": {"optimizer": {"name": "rowwise_adam"}},
    "row-wise Adam, learning rate 0.01": {"optimizer": {"name": "rowwise_adam", "learning_rate": 0.01}},
    # The best of 0.1, 0.3 and 1.
    "Adagrad, learning rate 1": {"optimizer": {"name": "adagrad", "learning_rate": 1.0}},
    "stop by cross-entropy": {"early_stopping": {"monitor": "label-crossentropy"}},
    "patience 1": {"early_stopping": {"patience": 1}},
}


def ablations(log: Log) -> dict[str, dict[str, Any]]:
    """Returns options of the trainer by the name of the change."""
    other_l2 = 0.3 if "soft_weight" in log.label else 0.148
    return {**ABLATIONS, "L2 of labels of the other kind, 0 and 1 or blended": {"l2": other_l2}}


def other_datasets(log: Log) -> dict[str, Log]:
    """Preprocesses the same rows in other ways."""
    label = log.label
    found = {"ids that occur once, too": replace(log, features={"frequency_threshold": 1})}
    if "soft_weight" in label:
        found["labels of 0 and 1"] = replace(log, label={k: label[k] for k in ("column", "threshold")})
        found["labels on the scale"] = replace(log, label={k: label[k] for k in ("column", "scale")})
    return found


# Two-sided, 95 %, by degrees of freedom.
_T = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


def interval(values: Sequence[float]) -> str:
    """Returns the mean and half of its 95 % interval."""
    mean = np.mean(values)
    if len(values) < 2:
        return f"{mean:.4f}"
    half = _T.get(len(values) - 1, 1.96) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{mean:.4f} ± {half:.4f}"


COLUMNS = {
    "auc": "test AUC",
    "gain": "against the first",
    "auc_new": "AUC of new items",
    "log_loss": "test log loss",
    "log_loss_unmapped": "without the map",
    "ece": "ECE",
    "rmse": "test RMSE",
    "eval_auc": "eval AUC",
    "epochs": "epochs",
}
HEADER = f"| log | model | runs | {' | '.join(COLUMNS.values())} |\n" + "|---" * (3 + len(COLUMNS)) + "|"


def table_rows(log: str, by_model: dict[str, list[dict[str, float]]]) -> str:
    """Returns a row for each model; gains in AUC are differences of runs on the same rows, so they vary far less."""
    lines = []
    (first, *_), others = by_model.values(), list(by_model.items())[1:]
    for _, scores in others:
        for found, reference in zip(scores, first, strict=True):
            found["gain"] = found["auc"] - reference["auc"]
    for model, scores in by_model.items():
        cells = [log, model, str(len(scores))]
        for column in COLUMNS:
            values = [s[column] for s in scores if column in s]
            cells.append("" if not values else f"{np.mean(values):.1f}" if column == "epochs" else interval(values))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, help="ratings.csv of MovieLens; without it, generated logs only")
    parser.add_argument("--logs", nargs="+", help="default: movielens, or sparse and dense without --input")
    parser.add_argument("--splits", type=int, nargs="+", default=[42], help="seeds of the test split")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="of eval split and training")
    parser.add_argument("--peers", nargs="*", choices=PEERS, help="all, unless some are named")
    parser.add_argument("--environment", type=Path, help="keeps the environment of the peers in this directory")
    parser.add_argument("--tune", type=int, default=0, metavar="TRIALS", help="also after a search of so many trials")
    parser.add_argument("--hashing", action="store_true", help="also with hashed ids")
    parser.add_argument("--ablation", action="store_true", help="also without each option")
    parser.add_argument("--results", type=Path, metavar="FILE", help="keeps the scores, as JSON Lines")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of the ablation, these beside all defaults")
    flags = parser.parse_args()
    known = logs(flags.input)
    chosen = flags.logs or (["movielens"] if flags.input else ["sparse", "dense"])
    if unknown := set(chosen) - set(known):
        parser.error(f"unknown logs {sorted(unknown)}; there are {sorted(known)}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    peers = () if flags.peers is None else tuple(flags.peers) or PEERS
    print(f"{machine()}\n\n{HEADER}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        python = peer_environment(flags.environment or Path(temporary) / "peers", PEER_PACKAGES) if peers else None
        for name in chosen:
            log, scores = known[name](), defaultdict[str, list[dict[str, float]]](list)
            for split in flags.splits:
                for seed in flags.seeds:
                    directory = Path(temporary) / f"{name}-{split}-{seed}"
                    directory.mkdir()
                    results = Results(flags.results, f"{name}, split {split}, seed {seed}")
                    for model, found in measure(log, split, seed, directory, flags, python, peers, results):
                        scores[model].append(found)
            print(table_rows(name, scores), flush=True)


class Results:
    """Keeps the scores of one split and seed, in a file of one line a model, shared by all.

    Args:
        path: None: they are only printed.
        run: names log, split and seed.
    """

    def __init__(self, path: Path | None, run: str) -> None:
        self._path = path
        self._run = run
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        found = [json.loads(line) for line in lines]
        self._known: dict[str, dict[str, float]] = {of["model"]: of["scores"] for of in found if of["run"] == run}

    def of(self, model: str, measure: Callable[[], dict[str, float]]) -> tuple[str, dict[str, float]]:
        """Returns the model and its scores, from the file or measured now."""
        scores = self._known.get(model)
        if scores is None:
            scores = self._known[model] = measure()
            print(f"# {self._run}, {model}: {scores}", file=sys.stderr, flush=True)
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps({"run": self._run, "model": model, "scores": scores}) + "\n")
        return model, dict(scores)


def measure(
    log: Log,
    split: int,
    seed: int,
    directory: Path,
    flags: argparse.Namespace,
    python: Path | None,
    peers: tuple[str, ...],
    results: Results,
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yields each model and its metrics on the test rows of a split; `directory` holds the files for that."""
    train_rows, test_rows = log.split(split)
    train_csv = directory / "train.csv"
    truth = test_rows["truth"] if "truth" in test_rows.columns else None
    train_rows, test_rows = (rows.drop("truth", strict=False) for rows in (train_rows, test_rows))
    train_rows.drop("positive").write_csv(train_csv)

    @functools.cache
    def dataset() -> Path:
        return preprocess(directory, log, train_csv, seed)

    def trained(number: int, options: dict[str, Any]) -> dict[str, float]:
        return score(train(directory, log, dataset(), seed, options, f"v{number}"), test_rows)

    def trained_on(number: int, other: Log) -> dict[str, float]:
        path = preprocess(directory, other, train_csv, seed, f"dataset{number}")
        return score(train(directory, other, path, seed, {}, f"d{number}"), test_rows)

    def tuned() -> dict[str, float]:
        run, finalists = train_tuned(directory, log, dataset(), seed, flags.tune)
        for finalist in finalists:
            print(f"# of the search: {finalist}", file=sys.stderr)
        # If the defaults stay, the training is that of the first variant.
        return first if run is None else score(run, test_rows)

    variants = ablations(log) if flags.ablation else {OURS: {}}
    datasets = other_datasets(log) if flags.ablation else {}
    if flags.only:
        variants = {name: options for name, options in variants.items() if not options or name in flags.only}
        datasets = {name: other for name, other in datasets.items() if name in flags.only}
    first: dict[str, float] = {}
    for number, (variant, options) in enumerate(variants.items()):
        found = results.of(variant, partial(trained, number, options))
        first = first or found[1]
        yield found
    for number, (variant, other) in enumerate(datasets.items()):
        yield results.of(variant, partial(trained_on, number, other))
    if flags.tune:
        yield results.of(TUNED, tuned)
    if flags.hashing:
        yield results.of(HASHED, lambda: score(train_hashed(directory, log, train_csv, seed, dataset()), test_rows))
    if python is not None:
        for peer in peers:
            yield results.of(peer, partial(score_peer, python, directory, log, train_rows, test_rows, seed, peer))
    if truth is not None:
        yield CEILING, {"auc": auc(test_rows, truth.to_numpy())}


if __name__ == "__main__":
    main()
