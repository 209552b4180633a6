"""Trains on a log without labels, to the export: two groups of users, each with its own items."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipeline.manifest import MANIFEST_NAME, DotbiasError
from tests.trainer.datasets import write_dataset
from trainer.config import TrainerConfig
from trainer.loop.warm_start import WarmStart
from trainer.output.export import export_with_items
from trainer.search.tuning import tune
from trainer.train import train

SIDES = {"user": "user", "item": "item"}
# Even users have even items. Item 0 and 1 are in many rows, the others in few.
USERS, ITEMS = 40, 30


def log_of(rows: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    user = rng.integers(0, USERS, rows)
    item = 2 * (rng.zipf(1.5, rows) % (ITEMS // 2)) + user % 2
    return {"user": [int(u) for u in user], "item": [int(i) for i in item], "label": [1.0] * rows}


def config(*, softmax: dict[str, Any] | None = None, **changes: Any) -> TrainerConfig:
    return TrainerConfig.model_validate(
        {
            "embedding_dim": 8,
            "batch_size": 64,
            "epochs": 12,
            "optimizer": {"learning_rate": 0.02},
            # The automatic one suits logs of more items than these few.
            "softmax": {"temperature": 0.1, "candidates": 16, **(softmax or {})},
            "steps_per_execution": 4,
            **changes,
        }
    )


def without_labels(directory: Path) -> None:
    manifest = json.loads((directory / MANIFEST_NAME).read_text())
    manifest["label"]["column"] = None
    manifest["label"]["soft_weight"] = None
    (directory / MANIFEST_NAME).write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("implicit")
    write_dataset(path, log_of(1500, 1), log_of(200, 2), SIDES, frequency_threshold=2)
    without_labels(path)
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "softmax",
    [
        pytest.param({"candidates": 16}, id="uniform"),
        pytest.param({"candidates": 8, "in_batch": 8}, id="mixed"),
    ],
)
def test_users_are_recommended_items_of_their_group(dataset: str, tmp_path: Path, softmax: dict[str, int]) -> None:
    result = train(dataset, str(tmp_path), config(softmax=softmax))
    assert result["config"]["early_stopping"]["monitor"] == "ndcg"
    assert {"softmax-crossentropy", "ndcg@20", "recall@20"} <= result["eval"].keys()
    best = result["train"]["epochs"][result["train"]["best_epoch"] - 1]
    assert result["eval"]["ndcg@20"] == best["eval"]["ndcg@20"] > 0.2
    export = tf.saved_model.load(str(tmp_path / "export"))
    answer = export.signatures["recommend"](
        user=tf.range(10, dtype=tf.int64), exclude=tf.fill([10, 1], tf.constant(-1, tf.int64)), k=tf.constant(5)
    )
    shares = answer["items"].numpy() % 2 == np.arange(10)[:, np.newaxis] % 2
    assert shares.mean() > 0.95
    # Popular items come first, and the probabilities of a user's items add up to about 1, in the mean over users.
    predict = export.signatures["serving_default"]
    user, item = (grid.ravel() for grid in np.meshgrid(np.arange(10), np.arange(ITEMS), indexing="ij"))
    probability = predict(user=tf.constant(user), item=tf.constant(item))["probability"].numpy().reshape(10, ITEMS)
    assert probability[::2, 2].min() > probability[::2, 20].max()
    assert 0.5 < np.exp(np.log(probability.sum(axis=1)).mean()) < 2


@pytest.mark.slow
def test_an_interrupted_training_goes_on_with_the_same_bits(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = config(epochs=4, refit=False, deterministic=True)
    undisturbed = train(dataset, str(tmp_path / "one"), options)

    class Killed(Exception):
        pass

    def kill(stage: str, done: int, total: int | None, numbers: Any) -> None:
        if done > 3300:
            raise Killed

    often = config(
        epochs=4, refit=False, deterministic=True, checkpoint={"every_steps": 4, "every_minutes": 10.0, "keep": 2}
    )
    with pytest.raises(Killed):
        train(dataset, str(tmp_path / "other"), often, kill)
    assert train(dataset, str(tmp_path / "other"), often)["eval"] == undisturbed["eval"]


@pytest.mark.slow
def test_a_warm_start_takes_over_what_has_not_been_folded(dataset: str, tmp_path: Path) -> None:
    """Epoch 0 of a warm start has the metrics of the former model."""
    former = train(dataset, str(tmp_path / "former"), config(refit=False))
    start = WarmStart(dataset, str(tmp_path / "former"))
    result = train(dataset, str(tmp_path / "next"), config(refit=False, epochs=1), start=start)
    assert result["warm_start"]["eval"]["ndcg@20"] == pytest.approx(former["eval"]["ndcg@20"])
    other = config(refit=False, epochs=1, objective="cross_entropy", early_stopping={"monitor": "ndcg"})
    with pytest.raises(DotbiasError, match=r"`pipeline.label: implicit`"):
        train(dataset, str(tmp_path / "labels"), other, start=start)


@pytest.mark.slow
@pytest.mark.parametrize("refit", [True, False])
def test_where_no_epoch_is_better_the_answers_are_the_former_ones(dataset: str, tmp_path: Path, refit: bool) -> None:
    train(dataset, str(tmp_path / "former"), config(refit=refit))
    # Steps that spoil everything.
    spoilt = config(refit=refit, epochs=2, optimizer={"learning_rate": 50.0})
    result = train(dataset, str(tmp_path / "next"), spoilt, start=WarmStart(dataset, str(tmp_path / "former")))
    assert result["train"]["best_epoch"] == 0
    user, item = (grid.ravel() for grid in np.meshgrid(np.arange(USERS), np.arange(ITEMS + 3), indexing="ij"))
    answers = []
    for name in ("former", "next"):
        predict = tf.saved_model.load(str(tmp_path / name / "export")).signatures["serving_default"]
        answers.append(predict(user=tf.constant(user), item=tf.constant(item))["probability"].numpy())
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-6)


@pytest.mark.slow
def test_a_labelled_log_may_be_trained_on_its_positive_rows(tmp_path: Path) -> None:
    """Users rate items of the other group low; rows with low ratings must not count as chosen items."""
    rows = log_of(1500, 3)
    rows["label"] = [float(u % 2 == i % 2) for u, i in zip(rows["user"], rows["item"], strict=True)]
    noise = log_of(1500, 4)
    noise["item"] = [i ^ 1 for i in noise["item"]]
    noise["label"] = [0.0] * 1500
    both = {name: [*rows[name], *noise[name]] for name in rows}
    write_dataset(tmp_path / "dataset", both, log_of(200, 5), SIDES, frequency_threshold=2)
    result = train(str(tmp_path / "dataset"), str(tmp_path / "model"), config(objective="softmax", refit=False))
    assert result["eval"]["ndcg@20"] > 0.2
    with pytest.raises(DotbiasError, match="should be ndcg"):
        monitored = config(objective="softmax", early_stopping={"monitor": "auc"})
        train(str(tmp_path / "dataset"), str(tmp_path / "other"), monitored)


@pytest.mark.slow
def test_a_search_goes_by_lists_and_tries_other_temperatures(dataset: str, tmp_path: Path) -> None:
    tuned = tune(dataset, str(tmp_path), config(epochs=2, tune={"trials": 2}))
    assert tuned.metrics["ndcg@20"] > 0
    with (tmp_path / "trials.csv").open() as file:
        first, second = csv.DictReader(file)
    for key in ("softmax.temperature", "softmax.candidates", "optimizer.learning_rate"):
        assert first[key] and second[key]
    assert float(first["eval score of a whole training"]) == pytest.approx(tuned.metrics["ndcg@20"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("hashed", [[], ["user", "item"]])
def test_on_a_checkerboard_the_withheld_item_comes_first(tmp_path: Path, hashed: list[str]) -> None:
    """Users meet the items of their parity, but for one; of the items that a user has not met, it comes first."""
    size = 16
    pairs = [(user, item) for user in range(size) for item in range(user % 2, size, 2)]
    train_rows, withheld = (
        [pair for pair in pairs if pair[0] != pair[1]],
        [pair for pair in pairs if pair[0] == pair[1]],
    )
    columns = [
        {"user": [user for user, _ in rows], "item": [item for _, item in rows], "label": [1.0] * len(rows)}
        for rows in (train_rows, withheld)
    ]
    write_dataset(tmp_path / "dataset", *columns, SIDES, hashed=hashed)
    without_labels(tmp_path / "dataset")
    # So many bins that no two tokens share one.
    options = config(batch_size=16, refit=False, hashing={name: {"num_bins": 5000} for name in hashed})
    train(str(tmp_path / "dataset"), str(tmp_path / "model"), options)
    export = tmp_path / "model" / "export"
    if hashed:
        # Hashed ids have no vocabulary to choose from.
        (tmp_path / "items.txt").write_text("".join(f"{item}\n" for item in range(size)))
        export_with_items(str(export), str(tmp_path / "items.txt"), str(tmp_path / "listed"), str(tmp_path / "dataset"))
        export = tmp_path / "listed"
    met = [[item for user, item in train_rows if user == one] for one in range(size)]
    answer = tf.saved_model.load(str(export)).signatures["recommend"](
        user=tf.range(size, dtype=tf.int64), exclude=tf.constant(met, tf.int64), k=tf.constant(1)
    )
    assert answer["items"].numpy()[:, 0].tolist() == list(range(size))
