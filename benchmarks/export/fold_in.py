"""Measures lists for users whom a model has never seen, beside the same users trained in.

    python benchmarks/export/fold_in.py --log clicks.csv --directory fold_in

The log is CSV with the header userId,itemId, one pair a row. A tenth of the users with at least five items are held
out, with a random fifth of the items of each as what their lists should find. One model is trained, by the real command
with `--config implicit`, on the other users only, and answers the held-out ones through `recommend_for_items` of its
export, from their other four fifths. A second model is trained on those four fifths too, and answers through
`recommend`. The list of an unknown user, the same for all, is what there is without fold-in.

Recall@20 is the share of a user's items that the list finds; NDCG@20 is divided by that of the best list. Prints a
table in Markdown; the models stay in the directory, so that a second start only asks them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

# So that `harness`, which all benchmarks share, is found.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.measure import ROOT, machine

K = 20
FEWEST_ITEMS = 5
USERS_AT_A_TIME = 500

Tokens = npt.NDArray[np.int64]


def divide(log: pl.DataFrame, share: float, seed: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Returns the rows of other users, and of the held-out users those that are known and those to be found."""
    rng = np.random.default_rng(seed)
    log = log.select("userId", "itemId").unique().sort("userId", "itemId")
    counts = log.group_by("userId").len().filter(pl.col("len") >= FEWEST_ITEMS).sort("userId")["userId"].to_numpy()
    chosen = rng.choice(counts, max(1, round(share * len(counts))), replace=False)
    held_out = log.filter(pl.col("userId").is_in(chosen))
    held_out = held_out.with_columns(pl.Series("draw", rng.random(len(held_out))))
    is_known = pl.col("draw").rank("ordinal").over("userId") <= 0.8 * pl.len().over("userId")
    held_out = held_out.with_columns(is_known.alias("is_known"))
    known, wanted = (
        held_out.filter(mask).select("userId", "itemId") for mask in (pl.col("is_known"), ~pl.col("is_known"))
    )
    return log.filter(~pl.col("userId").is_in(chosen)), known, wanted


def train(directory: Path, run_id: str, rows: pl.DataFrame, options: Sequence[str]) -> Path:
    """Trains with the real command unless that is done; returns the export."""
    path = directory / f"{run_id}.csv"
    if not path.exists():
        rows.write_csv(path)
    line = [sys.executable, str(ROOT / "run_pipeline.py"), "--config", "implicit", "--input", str(path)]
    line += ["--output_root", str(directory / "out"), "--run_id", run_id]
    for option in options:
        line += ["--set", option]
    for stage in ("preprocess", "train"):
        done = subprocess.run([*line, "--stage", stage], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(line)} --stage {stage} failed:\n{done.stderr}")
    return directory / "out" / "runs" / run_id / "model" / "export"


def ask(export: Path, signature: str, known: dict[int, list[int]], k: int = K) -> Tokens:
    """Returns the lists of users, `[users, k]`, without what they have; `signature` may be `unknown user`."""
    import tensorflow as tf

    model = tf.saved_model.load(str(export))
    users, found = list(known), []
    for start in range(0, len(users), USERS_AT_A_TIME):
        some = users[start : start + USERS_AT_A_TIME]
        items = tf.ragged.constant([known[user] for user in some], tf.int64).to_tensor(-1)
        inputs: dict[str, Any] = {"exclude": items, "k": tf.constant(k)}
        if signature == "recommend_for_items":
            inputs |= {"items": items, "exclude": tf.fill([len(some), 1], tf.constant(-1, tf.int64))}
        else:
            inputs["userId"] = tf.constant([-1 if signature == "unknown user" else user for user in some], tf.int64)
        answer = model.signatures["recommend" if signature == "unknown user" else signature](**inputs)
        found.append(answer["items"].numpy())
    return np.concatenate(found)


def score(lists: Tokens, wanted: Sequence[list[int]]) -> tuple[float, float]:
    """Returns Recall@20 and NDCG@20, means over users."""
    discount = 1 / np.log2(np.arange(K) + 2)
    hits = np.stack([np.isin(items, of_user) for items, of_user in zip(lists, wanted, strict=True)])
    number = np.array([len(of_user) for of_user in wanted])
    ideal = np.cumsum(discount)[np.minimum(number, K) - 1]
    return float((hits.sum(axis=1) / number).mean()), float((hits @ discount / ideal).mean())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, nargs="+", required=True)
    parser.add_argument("--directory", type=Path, required=True, help="for the models")
    parser.add_argument("--held_out", type=float, default=0.1, help="share of the users")
    parser.add_argument("--seed", type=int, default=0, help="of the division")
    parser.add_argument("--set", action="append", default=[], help="passed to both trainings")
    flags = parser.parse_args(arguments)
    flags.directory.mkdir(parents=True, exist_ok=True)
    log = pl.concat([pl.read_csv(path) for path in flags.log])
    others, known, wanted = divide(log, flags.held_out, flags.seed)
    items = {user: of_user for user, of_user in known.group_by("userId").agg("itemId").sort("userId").iter_rows()}
    found = dict(wanted.group_by("userId").agg("itemId").iter_rows())
    without = train(flags.directory, "without", others, flags.set)
    trained_in = train(flags.directory, "trained-in", pl.concat([others, known]), flags.set)
    print(f"{machine()}; {len(items):,} users held out, {len(wanted):,} of their items to find")
    print("\n| lists | Recall@20 | NDCG@20 |\n|---|---|---|")
    for name, export, signature in (
        ("an unknown user's", without, "unknown user"),
        ("`recommend_for_items`", without, "recommend_for_items"),
        ("`recommend`, the users trained in", trained_in, "recommend"),
    ):
        recall, ndcg = score(ask(export, signature, items), [found[user] for user in items])
        print(f"| {name} | {recall:.4f} | {ndcg:.4f} |", flush=True)


if __name__ == "__main__":
    main()
