"""Runs one measurement for `benchmarks/quality.py`: this model by its real command, or peers in their environment."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import yaml
from harness.measure import ROOT
from harness.quality_logs import Log

PEERS = ("Surprise SVD, tuned", "myFM regression", "myFM probit")
# setuptools: myFM asks it for its own version.
PEER_PACKAGES = ("myfm==0.3.6", "scikit-surprise==1.1.5", "numpy<2", "pandas", "scikit-learn", "setuptools<80")


def configuration(log: Log, trainer: dict[str, Any]) -> dict[str, Any]:
    feature = {"encoding": "vocabulary", **log.features}
    return {
        "pipeline": {
            "columns": {"user": "int64", "item": "int64", "value": "float32", "time": "int64"},
            # Without it, rows of the same pair would stay together in the train or in the eval rows.
            "timestamp_column": "time",
            "label": log.label,
            "features": {"user": {"side": "user", **feature}, "item": {"side": "item", **feature}},
        },
        "trainer": trainer,
    }


def command(directory: Path, config: Path, train_csv: Path, run_id: str, seed: int, *more: str) -> Path:
    """Runs the real command; returns the directory of the run."""
    line = [sys.executable, str(ROOT / "run_pipeline.py"), "--config", str(config), "--input", str(train_csv)]
    line += ["--output_root", str(directory / "out"), "--run_id", run_id]
    line += ["--set", f"pipeline.seed={seed}", "--set", f"trainer.seed={seed}", *more]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)} failed:\n{done.stderr}")
    return directory / "out" / "runs" / run_id


def preprocess(directory: Path, log: Log, train_csv: Path, seed: int, name: str = "dataset") -> Path:
    """Makes the dataset that the runs of a split and a seed train on; returns its directory."""
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(configuration(log, {})))
    return command(directory, path, train_csv, name, seed, "--stage", "preprocess") / "dataset"


def train(directory: Path, log: Log, dataset: Path, seed: int, trainer: dict[str, Any], name: str) -> Path:
    """Trains on a dataset; returns the directory of the run."""
    config = _run_on(dataset, directory, log, trainer, name)
    return command(directory, config, directory / "train.csv", name, seed, "--stage", "train")


def train_tuned(
    directory: Path, log: Log, dataset: Path, seed: int, trials: int
) -> tuple[Path | None, list[dict[str, str]]]:
    """Searches, and trains with what was found.

    Returns the directory of the run, None if the defaults stay, and the lines of the search's table for its whole
    trainings.
    """
    config = _run_on(dataset, directory, log, {}, "tuned")
    more = "--stage", "tune", "--set", f"trainer.tune.trials={trials}"
    run = command(directory, config, directory / "train.csv", "tuned", seed, *more)
    with (run / "tune" / "trials.csv").open() as file:
        finalists = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file) if row["best period"]]
    if finalists[0].get("chosen"):
        return None, finalists
    config = run / "tune" / "tuned.yaml"
    return command(directory, config, directory / "train.csv", "tuned", seed, "--stage", "train"), finalists


def _run_on(dataset: Path, directory: Path, log: Log, trainer: dict[str, Any], name: str) -> Path:
    """Makes the directory of a run that takes a dataset from elsewhere; returns its configuration."""
    run = directory / "out" / "runs" / name
    run.mkdir(parents=True)
    (run / "dataset").symlink_to(dataset)
    config = directory / f"{name}.yaml"
    config.write_text(yaml.safe_dump(configuration(log, trainer)))
    return config


def train_hashed(directory: Path, log: Log, train_csv: Path, seed: int, dataset: Path) -> Path:
    """Trains on the same rows with every feature hashed, into as many bins as its table has rows with the dataset."""
    manifest = json.loads((dataset / "manifest.json").read_text())
    config = configuration(log, {"hashing": {}})
    for name, feature in manifest["features"].items():
        config["pipeline"]["features"][name] = {"side": feature["side"], "encoding": "hashing"}
        bins = feature["vocabulary_size"] + feature["num_oov_buckets"]
        config["trainer"]["hashing"][name] = {"num_bins": bins}
    path = directory / "hashed.yaml"
    path.write_text(yaml.safe_dump(config))
    return command(directory, path, train_csv, "hashed", seed)


def auc(test: pl.DataFrame, score: npt.NDArray[Any]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(test["positive"].to_numpy(), score))


def score(run: Path, test: pl.DataFrame) -> dict[str, float]:
    """Scores the test rows through the export: AUC, log loss and ECE or, where the export gives values, RMSE."""
    from sklearn.metrics import log_loss

    from dotbias.evaluation.measure.metrics import calibration_table, expected_calibration_error

    tokens = {name: test[name].to_numpy() for name in ("user", "item")}
    answers = predict(run / "model" / "export", tokens)
    metrics = json.loads((run / "model" / "metrics.json").read_text())
    positive = test["positive"].to_numpy()
    found = {
        "auc": auc(test, answers["probability"]),
        "eval_auc": metrics["eval"]["auc"],
        "epochs": metrics["train"]["best_epoch"],
    }
    is_new = test["is_new"].to_numpy()
    if len(set(positive[is_new])) == 2:
        found["auc_new"] = auc(test.filter(is_new), answers["probability"][is_new])
    if "value" in answers:
        # Without a threshold, the probability is that of the upper half of the scale.
        found["rmse"] = float(np.sqrt(np.mean((answers["value"] - test["value"].to_numpy()) ** 2)))
    else:
        probability, calibration = answers["probability"].astype(np.float64), metrics["calibration"]
        found["log_loss"] = float(log_loss(positive, probability))
        found["ece"] = expected_calibration_error(calibration_table(probability, positive))
        # Back through the calibration map to the model's own logit.
        logit = (np.log(probability) - np.log1p(-probability) - calibration["offset"]) / calibration["scale"]
        found["log_loss_unmapped"] = float(log_loss(positive, 1 / (1 + np.exp(-logit))))
    return found


def predict(export: Path, tokens: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.float32]]:
    import tensorflow as tf

    # The loaded object has to outlive its signature.
    model = tf.saved_model.load(str(export))
    inputs = {name: tf.constant(values) for name, values in tokens.items()}
    return {name: values.numpy() for name, values in model.signatures["serving_default"](**inputs).items()}


def score_peer(
    python: Path, directory: Path, log: Log, train: pl.DataFrame, test: pl.DataFrame, seed: int, peer: str
) -> dict[str, float]:
    """Returns the scores of a peer, which gets the same rows; the tuning of SVD judges by a random tenth of them."""
    is_eval = pl.Series(np.random.default_rng([seed, 1]).random(len(train)) < 0.1)
    parts = {"train": train.filter(~is_eval), "eval": train.filter(is_eval), "test": test}
    task: dict[str, Any] = {"low": log.scale[0], "high": log.scale[1], "seed": seed, "peer": peer}
    for name, rows in parts.items():
        task[name] = str(directory / f"peers-{name}.csv")
        rows.write_csv(task[name])
    (directory / "peers.json").write_text(json.dumps(task))
    line = [str(python), str(ROOT / "benchmarks" / "peers" / "factorisation.py"), str(directory / "peers.json")]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)} failed:\n{done.stderr}")
    (answer,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {name: value for name, value in answer.items() if name != "options"}
