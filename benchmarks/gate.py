"""Measures how often the gate promotes a model that is as good as the champion, and one that is worse.

    python benchmarks/gate.py

Trains a champion and challengers that differ in the seed alone, on a generated log, and asks them for the rows of
a large eval split. A night consists of all rows of randomly drawn users, until it has the given number of rows. A
challenger that is worse by a known amount is the champion with noise added to its dot products. For each size of a
night, the table has the share of nights that the default `retraining.gate.margin` promotes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from harness.measure import machine

Floats = npt.NDArray[np.float32]
FEATURES = ("userId", "movieId")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=600_000, help="half of them are eval rows; default: %(default)s")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument(
        "--seeds", type=int, default=3, help="challengers that differ in the seed; default: %(default)s"
    )
    parser.add_argument("--nights", type=int, default=100, help="of each size and kind; default: %(default)s")
    parser.add_argument("--night_rows", type=int, nargs="+", default=[2_000, 10_000, 50_000])
    parser.add_argument("--losses", type=float, nargs="+", default=[0.002, 0.005, 0.01, 0.02], help="of AUC")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        champion, challengers = train_models(Path(directory), options)
    print_table(champion, challengers, options)


class Model:
    """Holds the vectors and biases of a model for the eval rows, and the labels."""

    def __init__(self, vectors: tuple[Floats, Floats], biases: Floats, positive: npt.NDArray[np.bool_]) -> None:
        self.vectors, self.biases, self.positive = vectors, biases, positive

    def probabilities(self, noise: float = 0.0, seed: int = 0) -> Floats:
        """Predicts with noise added to each row's dot product; `noise` is relative to their standard deviation."""
        dots = np.einsum("rd,rd->r", *self.vectors)
        dots = dots + np.random.default_rng(seed).normal(0, noise * dots.std() + 1e-12, len(dots)).astype(np.float32)
        return (1 / (1 + np.exp(-(dots + self.biases)))).astype(np.float32)


def train_models(
    directory: Path, options: argparse.Namespace
) -> tuple[tuple[Model, npt.NDArray[np.int64]], list[Floats]]:
    """Returns the champion with the user of each eval row, and the challengers' answers."""
    import trainer  # noqa: F401, before TensorFlow: it asks for Keras 2
    from dotbias.evaluation.exported.client import Export
    from dotbias.evaluation.shard_rows import read_eval, read_train
    from pipeline.config import PipelineConfig, SampleConfig
    from pipeline.preprocess import preprocess
    from pipeline.sample.generator import TrueModel, write_sample
    from trainer.config import TrainerConfig
    from trainer.data.dataset import Dataset
    from trainer.train import train

    log = directory / "log.csv"
    sample = SampleConfig(rows=options.rows, users=options.users, items=options.items)
    write_sample(TrueModel(sample), str(log), "train", options.rows)
    config = PipelineConfig.model_validate(
        {
            "input": {"patterns": [str(log)]},
            "columns": {"userId": "int64", "movieId": "int64", "clicked": "int64"},
            "label": {"column": "clicked"},
            "features": {"userId": {"side": "user"}, "movieId": {"side": "item"}},
            "split": {"method": "random", "eval_fraction": 0.5},
        }
    )
    dataset = str(directory / "dataset")
    preprocess(dataset, config, ["--runner=FnApiRunner"])
    models, champion, users = [], None, None
    for seed in range(options.seeds + 1):
        settings = TrainerConfig(seed=seed, refit=False, embedding_dim=16)
        train(dataset, str(directory / f"model-{seed}"), settings)
        data = Dataset.open(dataset, settings)
        export = Export(str(directory / f"model-{seed}" / "export"), data.manifest)
        rows = read_eval(data, read_train(data, _quiet), _quiet)
        if champion is None:
            vectors = [export.vectors(name, rows.ids[name].tokens)[rows.codes[name]] for name in FEATURES]
            answers = export.probabilities(rows, _quiet)
            dots = np.einsum("rd,rd->r", vectors[0][:, :-1], vectors[1][:, :-1])
            # What is left of the logit are the biases and the calibration.
            rest = np.log(answers / (1 - answers)) - dots
            positive = rows.positive(data.manifest.label.positive_at)
            champion = Model((vectors[0][:, :-1], vectors[1][:, :-1]), rest.astype(np.float32), positive)
            users = rows.clusters("userId")
        else:
            models.append(export.probabilities(rows, _quiet))
    assert champion is not None and users is not None
    return (champion, users), models


def print_table(
    trained: tuple[Model, npt.NDArray[np.int64]], challengers: list[Floats], options: argparse.Namespace
) -> None:
    from sklearn.metrics import roc_auc_score

    champion, users = trained
    answers = champion.probabilities()
    auc = roc_auc_score(champion.positive, answers)
    print(f"{machine()}\n")
    seeds = [roc_auc_score(champion.positive, other) - auc for other in challengers]
    print(f"champion: AUC {auc:.4f}; other seeds: {', '.join(f'{gain:+.4f}' for gain in seeds)}\n")
    kinds: dict[str, list[Floats]] = {"another seed": challengers}
    for loss in options.losses:
        noise = _noise_for(champion, auc - loss)
        kinds[f"AUC {-loss:+.3f}"] = [champion.probabilities(noise, seed) for seed in range(1, 4)]
    print("| rows a night | challenger | half width of the interval | promoted |\n|---|---|---|---|")
    for size in options.night_rows:
        for kind, others in kinds.items():
            promoted, widths = _nights(champion, users, answers, others, size, options.nights)
            print(f"| {size:,} | {kind} | {widths:.4f} | {promoted:.0%} |", flush=True)


def _nights(
    champion: Model, users: npt.NDArray[np.int64], answers: Floats, others: list[Floats], size: int, nights: int
) -> tuple[float, float]:
    """Returns the share of promoted nights, and the mean half width of the interval of the gain in AUC."""
    from dotbias.evaluation.measure.bootstrap import differences
    from dotbias.retraining.config import MarginConfig
    from dotbias.retraining.gate import failures, margin_checks

    random = np.random.default_rng(size)
    order = np.argsort(users, kind="stable")
    starts = np.flatnonzero(np.diff(users[order], prepend=-1))
    groups = np.split(order, starts[1:])
    promoted, widths = 0, []
    for night in range(nights):
        drawn, rows = [], 0
        for group in random.permutation(len(groups)):
            drawn.append(groups[group])
            rows += len(groups[group])
            if rows >= size:
                break
        at = np.concatenate(drawn)
        gain = differences(
            answers[at],
            others[night % len(others)][at],
            champion.positive[at],
            users[at],
            metrics=("auc", "log-loss"),
            resamples=300,
            seed=night,
        )
        # A log loss that is smaller is better.
        loss = gain["log-loss"]
        better = loss.model_copy(
            update={
                "value": -(loss.value or 0.0),
                "low": None if loss.high is None else -loss.high,
                "high": None if loss.low is None else -loss.low,
            }
        )
        checks = margin_checks({"auc": gain["auc"], "log_loss": better}, MarginConfig())
        promoted += not failures(checks)
        if gain["auc"].high is not None and gain["auc"].low is not None:
            widths.append((gain["auc"].high - gain["auc"].low) / 2)
    return promoted / nights, float(np.mean(widths))


def _noise_for(champion: Model, auc: float) -> float:
    """Finds the noise that brings the champion down to an AUC, by bisection."""
    from sklearn.metrics import roc_auc_score

    low, high = 0.0, 3.0
    for _ in range(20):
        middle = (low + high) / 2
        if roc_auc_score(champion.positive, champion.probabilities(middle, 1)) > auc:
            low = middle
        else:
            high = middle
    return high


def _quiet(*_: object) -> None:
    pass


if __name__ == "__main__":
    main()
