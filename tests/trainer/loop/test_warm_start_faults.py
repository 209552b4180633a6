"""Checks that a former training which does not fit is a cold start with its reason, and that kills change nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.manifest import DotbiasError
from tests.trainer.datasets import write_dataset
from tests.trainer.loop.warm_starts import (
    FEATURES,
    Trained,
    config_of,
    exported,
    next_log,
    rows_of,
    saved,
)
from tests.trainer.runs import Killed, assert_same_weights, without_times
from trainer.data.dataset import Dataset
from trainer.finished import fingerprint_of, is_complete
from trainer.loop.checkpoint import CheckpointDirectory
from trainer.loop.warm_start import ColdStart, Former, WarmStart
from trainer.train import train


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"embedding_dim": 5}, "`trainer.embedding_dim` was 4, and is 5"),
        ({"optimizer": {"name": "sgd"}}, "`trainer.optimizer.name` was lazy_adam, and is sgd"),
    ],
)
def test_another_configuration_starts_cold(
    former: Trained, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    config = config_of(epochs=1, **changes)
    result = train(former.dataset, str(tmp_path / "warm"), config, start=former.start)
    assert result["warm_start"] == {
        "from": former.result["fingerprint"],
        "model_dir": str(former.model_dir),
        "cold": reason,
    }
    train(former.dataset, str(tmp_path / "cold"), config)
    for name, table in exported(tmp_path / "warm").items():
        np.testing.assert_array_equal(table, exported(tmp_path / "cold")[name])
    # The same start is the same training.
    assert is_complete(former.dataset, str(tmp_path / "warm"), config, former.start)


@pytest.mark.slow
def test_other_features_start_cold(former: Trained, tmp_path: Path) -> None:
    rows = {name: values for name, values in rows_of(300, 1, 0).items() if name != "genre"}
    write_dataset(tmp_path / "fewer", rows, rows, {n: s for n, s in FEATURES.items() if n != "genre"}, positive_at=0.5)
    result = train(str(tmp_path / "fewer"), str(tmp_path / "model"), config_of(epochs=1), start=former.start)
    assert "the list of features was ['country', 'genre', " in result["warm_start"]["cold"]
    hashed = config_of(hashing={"userId": {"num_bins": 9}}, epochs=1)
    dataset = next_log(tmp_path / "hashed", hashed=("userId",))
    result = train(dataset, str(tmp_path / "other"), hashed, start=former.start)
    assert result["warm_start"]["cold"] == "`encoding` of userId was vocabulary, and is hashing"
    more = hashed.model_copy(update={"hashing": config_of(hashing={"userId": {"num_bins": 8}}).hashing})
    start = WarmStart(dataset, str(tmp_path / "other"))
    result = train(dataset, str(tmp_path / "bins"), more, start=start)
    assert result["warm_start"]["cold"] == "the number of bins of userId was 9, and is 8"


def without_metrics(former: Path) -> None:
    (former / "model" / "metrics.json").unlink()


def without_state(former: Path) -> None:
    shutil.rmtree(former / "model" / "state")


def of_another_training(former: Path) -> None:
    path = former / "model" / "state" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fingerprint": "another"}))


def without_vocabulary(former: Path) -> None:
    (former / "dataset" / "vocabulary" / "genre.txt").unlink()


def without_dataset(former: Path) -> None:
    (former / "dataset" / "manifest.json").unlink()


def of_another_dataset(former: Path) -> None:
    path = former / "dataset" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "versions": {"x": "1"}}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (without_metrics, "holds no finished model"),
        (without_state, "holds no state of its model"),
        (of_another_training, "holds no state of its model"),
        (without_vocabulary, "genre.txt is missing"),
        (without_dataset, "manifest.json"),
        (of_another_dataset, "is not the dataset that .* was trained on"),
    ],
)
def test_a_former_training_that_is_not_whole_starts_cold(
    former: Trained, tmp_path: Path, damage: Any, reason: str
) -> None:
    shutil.copytree(former.model_dir.parent, tmp_path / "former")
    damage(tmp_path / "former")
    start = WarmStart(str(tmp_path / "former" / "dataset"), str(tmp_path / "former" / "model"))
    config = config_of(epochs=1)
    with pytest.raises(ColdStart, match=reason):
        Former.open(start, fingerprint_of(start), Dataset.open(former.dataset, config), config)


def test_weights_that_cannot_be_read_are_named(former: Trained, tmp_path: Path) -> None:
    shutil.copytree(former.model_dir, tmp_path / "former")
    path = tmp_path / "former" / "state" / "weights.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DotbiasError, match=r"start from, .*former/state/weights, cannot be read .* Delete that"):
        start = WarmStart(former.dataset, str(tmp_path / "former"))
        train(former.dataset, str(tmp_path / "model"), config_of(epochs=1), start=start)


@pytest.mark.slow
def test_another_start_is_another_training(former: Trained, tmp_path: Path) -> None:
    config = config_of(epochs=1, refit=False)
    again = train(former.dataset, str(tmp_path / "again"), config, start=former.start)
    assert is_complete(former.dataset, str(tmp_path / "again"), config, former.start)
    # Whether or not its state has been deleted since.
    shutil.copytree(former.model_dir, tmp_path / "former", ignore=shutil.ignore_patterns("state"))
    assert is_complete(
        former.dataset, str(tmp_path / "again"), config, WarmStart(former.dataset, str(tmp_path / "former"))
    )
    with pytest.raises(DotbiasError, match=r"the model to start from: \w{12} -> none"):
        is_complete(former.dataset, str(tmp_path / "again"), config)
    other = WarmStart(former.dataset, str(tmp_path / "again"))
    with pytest.raises(DotbiasError, match=r"the model to start from: \w{12} -> \w{12}"):
        train(former.dataset, str(tmp_path / "again"), config, start=other)
    assert again["fingerprint"] != former.result["fingerprint"]


@pytest.fixture(scope="module")
def undisturbed(former: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trains on the next log with a warm start."""
    path, config = tmp_path_factory.mktemp("undisturbed"), config_of(refit=True)
    dataset, model_dir = next_log(path / "next"), path / "model"
    return Trained(dataset, model_dir, config, train(dataset, str(model_dir), config, start=former.start))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "row", "goes_on_at"),
    # Before the first step, in the first and in the second epoch; then the same in the refit.
    [("train", 0, 0), ("train", 192, 0), ("train", 800, 500), ("refit", 0, 0), ("refit", 700, 590)],
)
def test_a_warm_start_that_was_killed_goes_on(
    former: Trained, undisturbed: Trained, tmp_path: Path, stage: str, row: int, goes_on_at: int
) -> None:
    dataset, model_dir, config, expected = undisturbed
    assert expected["train"]["best_epoch"] >= 2

    def die(name: str, done: int, total: int | None, metrics: Mapping[str, float]) -> None:
        if name == stage and done >= row:
            raise Killed

    with pytest.raises(Killed):
        train(dataset, str(tmp_path / "model"), config, die, former.start)
    calls: list[tuple[str, int]] = []
    result = train(dataset, str(tmp_path / "model"), config, lambda *call: calls.append(call[:2]), former.start)
    assert calls[0] == (stage, goes_on_at)
    assert without_times(result) == without_times(expected)
    assert_same_weights(tmp_path / "model", model_dir, tables=4)
    ours, theirs = saved(tmp_path / "model"), saved(model_dir)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value)


@pytest.mark.slow
def test_checkpoints_of_another_start_are_not_continued(former: Trained, tmp_path: Path) -> None:
    dataset, config = next_log(tmp_path / "next"), config_of()

    def die(name: str, done: int, *_: Any) -> None:
        if done >= 500:
            raise Killed

    with pytest.raises(Killed):
        train(dataset, str(tmp_path / "model"), config, die)
    with pytest.raises(Killed):
        train(dataset, str(tmp_path / "model"), config, die, former.start)
    state = CheckpointDirectory(str(tmp_path / "model")).last_state()
    assert state is not None and state.warm_start is not None and not state.periods
