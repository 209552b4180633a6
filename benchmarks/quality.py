"""How well the exported model ranks rows that it has not seen: AUC and log loss, over several seeds.

    python benchmarks/quality.py --config configs/movielens.yaml --input ratings.csv

A tenth of the rows is set aside for the test, the same for all seeds. Each seed preprocesses and trains on the other
nine tenths, with the real command and its own eval split, and the test rows are scored through the export alone. The
second line of the table is the same with hashed ids, as many bins as the vocabulary has indices.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import yaml

ROOT = Path(__file__).resolve().parent.parent
TEST_FRACTION = 0.1
TEST_SEED = 42


def split_rows(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows to train on, rows to test on."""
    is_test = pl.Series(np.random.default_rng(TEST_SEED).random(len(rows)) < TEST_FRACTION)
    return rows.filter(~is_test), rows.filter(is_test)


def hashing_config(config: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    """The configuration with every feature hashed, into as many bins as its vocabulary and OOV buckets have indices."""
    features = {
        name: {"side": feature["side"], "encoding": "hashing"} for name, feature in manifest["features"].items()
    }
    bins = {
        name: {"num_bins": feature["vocabulary_size"] + feature["num_oov_buckets"]}
        for name, feature in manifest["features"].items()
    }
    return {
        **config,
        "pipeline": {**config["pipeline"], "features": features},
        "trainer": {**config["trainer"], "hashing": bins},
    }


def run(directory: Path, name: str, config: dict[str, Any], train_csv: Path, seed: int, overrides: list[str]) -> Path:
    """Preprocesses and trains with the real command; returns the directory of the run."""
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    settings = [f"pipeline.seed={seed}", f"trainer.seed={seed}", *overrides]
    command = [sys.executable, str(ROOT / "run_pipeline.py"), "--config", str(path), "--input", str(train_csv)]
    command += ["--output_root", str(directory / "out"), "--run_id", f"{name}-{seed}"]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return directory / "out" / "runs" / f"{name}-{seed}"


def predict(export: Path, tokens: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """P(positive) of each row, through the export."""
    import tensorflow as tf

    # The loaded object has to outlive its signature.
    model = tf.saved_model.load(str(export))
    inputs = {name: tf.constant(values) for name, values in tokens.items()}
    return model.signatures["serving_default"](**inputs)["probability"].numpy().astype(np.float64)


def score(run_directory: Path, test: pl.DataFrame) -> dict[str, float]:
    from sklearn.metrics import log_loss, roc_auc_score

    manifest = json.loads((run_directory / "dataset" / "manifest.json").read_text())
    metrics = json.loads((run_directory / "model" / "metrics.json").read_text())
    label = manifest["label"]
    threshold = label["positive_at"] if label["threshold"] is None else label["threshold"]
    positive = (test[label["column"]] >= threshold).to_numpy()
    tokens = {
        name: test[name].cast(pl.String if feature["token_dtype"] == "string" else pl.Int64).to_numpy()
        for name, feature in manifest["features"].items()
    }
    probability = predict(run_directory / "model" / "export", tokens)
    return {
        "test AUC": float(roc_auc_score(positive, probability)),
        "test log loss": float(log_loss(positive, probability)),
        "eval AUC": metrics["eval"]["auc"],
        "epochs": metrics["train"]["best_epoch"],
    }


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: a line for each encoding, each seed's AUC, then mean and standard deviation over the seeds."""
    lines = ["| ids | test AUC by seed | test AUC | test log loss | eval AUC | epochs |", "|---|---|---|---|---|---|"]
    for name, scores in results.items():
        cells = [name, " ".join(f"{s['test AUC']:.4f}" for s in scores)]
        for column, digits in (("test AUC", 4), ("test log loss", 4), ("eval AUC", 4), ("epochs", 1)):
            values = [s[column] for s in scores]
            cells.append(f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, type=Path)
    parser.add_argument("--input", required=True, type=Path, help="CSV file with a header")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="handed to run_pipeline.py")
    flags = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    config = yaml.safe_load(flags.config.read_text())
    train, test = split_rows(pl.read_csv(flags.input))
    print(f"{flags.input}: {len(train):,} rows to train on, {len(test):,} to test on", flush=True)
    results: dict[str, list[dict[str, float]]] = {"vocabulary": [], "hashing": []}
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        train_csv = directory / "train.csv"
        train.write_csv(train_csv)
        for seed in flags.seeds:
            of_vocabulary = run(directory, "vocabulary", config, train_csv, seed, flags.set)
            results["vocabulary"].append(score(of_vocabulary, test))
            manifest = json.loads((of_vocabulary / "dataset" / "manifest.json").read_text())
            of_hashing = run(directory, "hashing", hashing_config(config, manifest), train_csv, seed, flags.set)
            results["hashing"].append(score(of_hashing, test))
            print(f"seed {seed}: {results['vocabulary'][-1]} hashing: {results['hashing'][-1]}", flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
