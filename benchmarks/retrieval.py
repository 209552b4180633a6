"""Measures lists on a log without labels: all items are ranked for each test user, without those of the train files.

    python benchmarks/retrieval.py --train train.csv valid.csv --test test.csv --directory retrieval \\
        --seeds 1 2 3 4 5 --published gowalla

The files are CSV with the header userId,itemId; the train files are one log. This model is trained by the real command
with `--config implicit`, which takes its own eval rows, and is asked for its lists through the signature `recommend` of
its export. Popularity, ALS and BPR of the package `implicit`, and EASE get the same rows. ALS, BPR and EASE run in an
environment that is made for them. Each is trained with the settings of a small grid, judged by NDCG@20 on a random
tenth of the train rows, and trained again on all rows with the best. EASE inverts a matrix of items times items, so it
is left out where there are more than 12,000 items. The test file is read once, to score the lists.

Recall@20 is the share of a user's test items in the list. NDCG@20 is divided by that of the best list of
min(20, test items). Both are means over the users with test rows; with several seeds, means over seeds with 95 %
intervals. Prints a table in Markdown, and keeps runs and lists in the directory, so that a second start continues.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from harness.environments import peer_environment
from harness.measure import ROOT, machine

PEER_PACKAGES = ("implicit==0.7.2",)
# By name: the model, and the settings that are tried.
PEERS: dict[str, dict[str, list[float]]] = {
    "ALS": {"factors": [64, 128, 256], "regularization": [10, 30], "alpha": [5, 40]},
    "BPR": {"factors": [64, 128], "regularization": [0.01, 0.001], "learning_rate": [0.05], "iterations": [200]},
    "EASE": {"regularization": [100, 200, 400, 800]},
}
# Recall@20 and NDCG@20 on a published division of a log, with all items ranked; validation there is often the test set.
PUBLISHED = {
    "gowalla": (
        "[BARS](https://openbenchmark.github.io/BARS/)",
        {
            "MF-BPR": (0.1627, 0.1378),
            "MultVAE": (0.1641, 0.1335),
            "SLIM": (0.1699, 0.1382),
            "YoutubeDNN": (0.1754, 0.1473),
            "EASE": (0.1765, 0.1467),
            "LightGCN": (0.1820, 0.1547),
            "MF-CCL": (0.1837, 0.1493),
            "UltraGCN": (0.1862, 0.1580),
            "SimpleX": (0.1872, 0.1557),
        },
    )
}
# Of two to five values, the half width of a 95 % interval of the mean in standard errors (Student's t).
STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}
K = 20
MOST_ITEMS_OF_EASE = 12_000
USERS_AT_A_TIME = 1000

Tokens = npt.NDArray[np.int64]


def score(lists: Tokens, users: Tokens, test: pl.DataFrame) -> tuple[float, float]:
    """Returns Recall@20 and NDCG@20 of lists `[users, 20]`."""
    relevant = dict(test.group_by("userId").agg("itemId").iter_rows())
    discount = 1 / np.log2(np.arange(K) + 2)
    recall, ndcg = [], []
    for user, items in zip(users.tolist(), lists, strict=True):
        hit = np.isin(items, relevant[user])
        recall.append(hit.sum() / len(relevant[user]))
        ndcg.append((hit * discount).sum() / discount[: len(relevant[user])].sum())
    return float(np.mean(recall)), float(np.mean(ndcg))


def dotbias_lists(directory: Path, train_csv: Path, seed: int, users: Tokens, seen: dict[int, list[int]]) -> Tokens:
    """Trains with the real command, and asks the export."""
    run_id = f"seed-{seed}"
    line = [sys.executable, str(ROOT / "run_pipeline.py"), "--config", "implicit", "--input", str(train_csv)]
    line += ["--output_root", str(directory / "out"), "--run_id", run_id]
    line += ["--set", f"pipeline.seed={seed}", "--set", f"trainer.seed={seed}"]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)} failed:\n{done.stderr}")
    import tensorflow as tf

    export = tf.saved_model.load(str(directory / "out" / "runs" / run_id / "model" / "export"))
    return recommended(export, "userId", users, seen)


def recommended(export: Any, feature: str, users: Tokens, seen: dict[int, list[int]]) -> Tokens:
    """Asks an export for the lists of users `[users, 20]`."""
    import tensorflow as tf

    found = []
    for start in range(0, len(users), USERS_AT_A_TIME):
        some = users[start : start + USERS_AT_A_TIME]
        excluded = tf.ragged.constant([seen.get(user, []) for user in some.tolist()], tf.int64).to_tensor(-1)
        asked = {feature: tf.constant(some), "exclude": excluded, "k": tf.constant(K)}
        found.append(export.signatures["recommend"](**asked)["items"].numpy())
    return np.concatenate(found)


def popular_lists(train: pl.DataFrame, users: Tokens, seen: dict[int, list[int]]) -> Tokens:
    counted = train["itemId"].value_counts().sort("count", "itemId", descending=[True, False])
    # Enough for the user with the most items.
    ordered = counted["itemId"].to_numpy()[: K + max(map(len, seen.values()))]
    return np.stack([ordered[~np.isin(ordered, seen.get(user, []))][:K] for user in users.tolist()])


def peer_lists(
    directory: Path, model: str, train_csv: Path, seeds: Sequence[int], users: Tokens, paths: Sequence[Path]
) -> None:
    """Tunes a peer in an environment of its own, which is made if needed, and writes its lists for each seed."""
    python = peer_environment(directory / "peers", PEER_PACKAGES)
    asked = directory / "users.npy"
    np.save(asked, users)
    task = {
        "model": model,
        "grid": PEERS[model],
        "seeds": list(seeds),
        "train": str(train_csv),
        "users": str(asked),
        "lists": [str(path) for path in paths],
        "k": K,
    }
    # ALS has threads of its own, and is slower with those of BLAS beside them.
    threads = {} if model == "EASE" else {"OPENBLAS_NUM_THREADS": "1"}
    line = [str(python), str(ROOT / "benchmarks" / "peers" / "retrieval.py"), json.dumps(task)]
    subprocess.run(line, check=True, env={**os.environ, **threads})


def row(name: str, scores: Sequence[tuple[float, ...]], *more: str) -> str:
    """Formats a line of the table: means over seeds, with intervals where there are two seeds or more."""
    cells = []
    for values in zip(*scores, strict=True):
        errors = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0
        half = f" ± {STUDENT.get(len(values), 2.78) * errors:.4f}" if len(values) > 1 else ""
        cells.append(f"{np.mean(values):.4f}{half}")
    return f"| {' | '.join([name, *cells, *more])} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, nargs="+", required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--directory", type=Path, required=True, help="for runs, lists and the peers' environment")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--published", choices=PUBLISHED, help="print the published figures for this log too")
    flags = parser.parse_args(arguments)
    flags.directory.mkdir(parents=True, exist_ok=True)
    train = pl.concat([pl.read_csv(path) for path in flags.train]).select("userId", "itemId")
    train_csv = flags.directory / "all.csv"
    if not train_csv.exists():
        train.write_csv(train_csv)
    test = pl.read_csv(flags.test)
    users = test["userId"].unique().sort().to_numpy()
    seen = dict(train.group_by("userId").agg("itemId").iter_rows())
    known = np.isin(users, train["userId"].unique().to_numpy())
    if not known.all():
        print(f"# {np.count_nonzero(~known):,} test users have no train rows, and are left out", file=sys.stderr)
        users = users[known]

    def paths(name: str, seeds: Sequence[int]) -> list[Path]:
        return [flags.directory / f"{name}-{seed}.npy" for seed in seeds]

    def scored(found: Sequence[Path]) -> list[tuple[float, float]]:
        return [score(np.load(path), users, test) for path in found]

    print(machine(), f"{len(train):,} train rows, {len(test):,} test rows of {len(users):,} users", sep="\n")
    print("\n| model | Recall@20 | NDCG@20 | source |\n|---|---|---|---|", flush=True)
    print(row("popularity", [score(popular_lists(train, users, seen), users, test)], "this run"), flush=True)
    for model in flags.peers:
        if model == "EASE" and train["itemId"].n_unique() > MOST_ITEMS_OF_EASE:
            continue
        # EASE has a closed form.
        found = paths(model, flags.seeds[:1] if model == "EASE" else flags.seeds)
        if missing := [(seed, path) for seed, path in zip(flags.seeds, found, strict=False) if not path.exists()]:
            seeds, new = zip(*missing, strict=True)
            peer_lists(flags.directory, model, train_csv, seeds, users, new)
        print(row(f"{model}, tuned", scored(found), "this run"), flush=True)
    found = paths("dotbias", flags.seeds)
    for seed, path in zip(flags.seeds, found, strict=True):
        if not path.exists():
            np.save(path, dotbias_lists(flags.directory, train_csv, seed, users, seen))
    print(row("**Dotbias, `configs/implicit.yaml`**", scored(found), "this run"), flush=True)
    if flags.published:
        source, figures = PUBLISHED[flags.published]
        for model, figure in figures.items():
            print(row(model, [figure], source))


if __name__ == "__main__":
    main()
