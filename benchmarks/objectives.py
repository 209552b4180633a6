"""Compares the objectives on a log with labels: how well each tells labels apart, and how well it finds items.

    python benchmarks/objectives.py --input ratings.csv --directory objectives --seeds 1 2 3

The file is a MovieLens log; a rating of 4 or more is positive. A random tenth is the test set. Both models are trained
by the real command on the same rows, and both are asked through their exports: for the probability of each test row
(AUC), and for lists of 20 (`recommend`), without what a user has in train. Relevant are a user's positive test rows.
Prints a table in Markdown: means over seeds, each with its own division. A second start continues.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import yaml
from harness.measure import machine
from harness.quality_logs import logs
from harness.quality_runs import command, configuration
from retrieval import K, popular_lists, recommended, row, score

OBJECTIVES = ("cross_entropy", "softmax")


def measure(directory: Path, input_file: Path, seed: int) -> dict[str, tuple[float, ...]]:
    """Returns AUC, Recall@20 and NDCG@20 by objective, and of popularity, for one division of the rows."""
    import tensorflow as tf
    from sklearn.metrics import roc_auc_score

    log = logs(input_file)["movielens"]()
    train, test = log.split(seed)
    directory.mkdir(parents=True, exist_ok=True)
    train_csv = directory / "train.csv"
    if not train_csv.exists():
        train.select("user", "item", "value", "time").write_csv(train_csv)
    pairs = train.select(userId="user", itemId="item")
    wanted = test.filter(pl.col("positive") == 1).select(userId="user", itemId="item")
    users = np.intersect1d(wanted["userId"].to_numpy(), pairs["userId"].to_numpy())
    wanted = wanted.filter(pl.col("userId").is_in(users))
    seen = dict(pairs.group_by("userId").agg("itemId").iter_rows())
    liked = train.filter(pl.col("positive") == 1).select(userId="user", itemId="item")
    found: dict[str, tuple[float, ...]] = {
        "most positive rows first": (0.5, *score(popular_lists(liked, users, seen), users, wanted))
    }
    for objective in OBJECTIVES:
        config = directory / f"{objective}.yaml"
        config.write_text(yaml.safe_dump(configuration(log, {"objective": objective})))
        run = command(directory, config, train_csv, objective, seed)
        export = tf.saved_model.load(str(run / "model" / "export"))
        tokens = {name: tf.constant(test[name].to_numpy()) for name in ("user", "item")}
        probability = export.signatures["serving_default"](**tokens)["probability"].numpy()
        auc = float(roc_auc_score(test["positive"].to_numpy(), probability))
        found[objective] = (auc, *score(recommended(export, "user", users, seen), users, wanted))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    flags = parser.parse_args(arguments)
    by_seed = [measure(flags.directory / f"seed-{seed}", flags.input, seed) for seed in flags.seeds]
    print(machine())
    print(f"\n| model | AUC of the label | Recall@{K} | NDCG@{K} |\n|---|---|---|---|")
    for name in by_seed[0]:
        print(row(name, [found[name] for found in by_seed]))


if __name__ == "__main__":
    main()
