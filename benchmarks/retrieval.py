"""Measures lists on a log without labels: all items are ranked for each test user, without those of the train files.

    python benchmarks/retrieval.py --train train.csv valid.csv --test test.csv --directory retrieval

The files are CSV with the header userId,itemId; the train files are one log. This model is trained by the real command
with `--config implicit`, which takes its own eval rows, and is asked for its lists through the signature `recommend` of
its export. Popularity, and ALS and BPR of the package `implicit`, get the same rows; ALS and BPR run in an environment
that is made for them, each with the settings that are named. The test file is read once, to score the lists.

Recall@20 is the share of a user's test items in the list. NDCG@20 is divided by that of the best list of
min(20, test items). Both are means over the users with test rows. Prints a table in Markdown, and keeps runs and lists
in the directory, so that a second start continues.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from harness.environments import peer_environment
from harness.measure import ROOT, machine

PEER_PACKAGES = ("implicit==0.7.2",)
# By name: the model of `implicit` and its options.
PEERS: dict[str, dict[str, Any]] = {
    "ALS, 128 factors": {"model": "als", "factors": 128, "regularization": 10.0, "alpha": 40.0},
    "ALS, 256 factors": {"model": "als", "factors": 256, "regularization": 30.0, "alpha": 40.0},
    "BPR, 128 factors": {"model": "bpr", "factors": 128, "regularization": 0.01, "iterations": 200},
}
K = 20
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
    found = []
    for start in range(0, len(users), USERS_AT_A_TIME):
        some = users[start : start + USERS_AT_A_TIME]
        excluded = tf.ragged.constant([seen.get(user, []) for user in some.tolist()], tf.int64).to_tensor(-1)
        answer = export.signatures["recommend"](userId=tf.constant(some), exclude=excluded, k=tf.constant(K))
        found.append(answer["items"].numpy())
    return np.concatenate(found)


def popular_lists(train: pl.DataFrame, users: Tokens, seen: dict[int, list[int]]) -> Tokens:
    counted = train["itemId"].value_counts().sort("count", "itemId", descending=[True, False])
    # Enough for the user with the most items.
    ordered = counted["itemId"].to_numpy()[: K + max(map(len, seen.values()))]
    return np.stack([ordered[~np.isin(ordered, seen.get(user, []))][:K] for user in users.tolist()])


def peer_lists(directory: Path, options: dict[str, Any], train_csv: Path, users: Tokens, path: Path) -> Tokens:
    """Runs a model of `implicit` in an environment of its own, which is made if needed."""
    python = peer_environment(directory / "peers", PEER_PACKAGES)
    asked = directory / "users.npy"
    np.save(asked, users)
    task = {**options, "train": str(train_csv), "users": str(asked), "lists": str(path), "k": K}
    # ALS has threads of its own, and is slower with those of BLAS beside them.
    line = [str(python), str(ROOT / "benchmarks" / "peers" / "retrieval.py"), json.dumps(task)]
    subprocess.run(line, check=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    return np.asarray(np.load(path))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, nargs="+", required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--directory", type=Path, required=True, help="for runs, lists and the peers' environment")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    flags = parser.parse_args(arguments)
    flags.directory.mkdir(parents=True, exist_ok=True)
    train = pl.concat([pl.read_csv(path) for path in flags.train]).select("userId", "itemId")
    train_csv = flags.directory / "all.csv"
    if not train_csv.exists():
        train.write_csv(train_csv)
    test = pl.read_csv(flags.test)
    users = test["userId"].unique().sort().to_numpy()
    seen = dict(train.group_by("userId").agg("itemId").iter_rows())

    def made(name: str, make: Callable[[Path], Tokens]) -> str:
        path = flags.directory / f"{name.replace(', ', '-').replace(' ', '-')}.npy"
        began = time.monotonic()
        there = path.exists()
        lists = np.load(path) if there else make(path)
        np.save(path, lists)
        recall, ndcg = score(lists, users, test)
        seconds = "" if there else f"{time.monotonic() - began:.0f}"
        return f"| {name} | {recall:.4f} | {ndcg:.4f} | {seconds} |"

    print(machine(), f"{len(train):,} train rows, {len(test):,} test rows of {len(users):,} users", sep="\n")
    print("\n| model | Recall@20 | NDCG@20 | seconds |\n|---|---|---|---|", flush=True)
    print(made("popularity", lambda _: popular_lists(train, users, seen)), flush=True)
    for name in flags.peers:
        options = PEERS[name]
        print(
            made(name, lambda path, options=options: peer_lists(flags.directory, options, train_csv, users, path)),
            flush=True,
        )
    for seed in flags.seeds:
        print(
            made(
                f"dotbias, seed {seed}",
                lambda _, seed=seed: dotbias_lists(flags.directory, train_csv, seed, users, seen),
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
