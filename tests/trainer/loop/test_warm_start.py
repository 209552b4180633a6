"""Checks that a warm start copies rows by token, and that a cold start says why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from pipeline.manifest import DotbiasError
from tests.trainer.conftest import small_config
from tests.trainer.datasets import write_dataset
from tests.trainer.runs import Killed, assert_same_weights, without_times
from trainer.build import compiled_model
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.devices.strategy import make_strategy
from trainer.finished import is_complete
from trainer.loop.checkpoint import CheckpointDirectory
from trainer.loop.defaults import with_automatic_values
from trainer.loop.saved_state import make_slots
from trainer.loop.warm_start import Former, WarmStart
from trainer.train import train

# Two features a side, string and int64, one of them hashed in some tests.
FEATURES = {"userId": "user", "country": "user", "movieId": "item", "genre": "item"}


def rows_of(rows: int, seed: int, first_user: int) -> dict[str, Any]:
    """Draws users and movies from a first number on, so that two logs share some of them."""
    rng = np.random.default_rng(seed)
    user, movie = rng.integers(0, 20, rows) + first_user, rng.integers(0, 15, rows) + first_user // 2
    label = np.clip((user % 7 + movie % 5 + rng.integers(0, 3, rows)) / 12, 0, 1)
    return {
        "userId": [f"u{i}" for i in user],
        "country": [f"c{i % 4}" for i in user],
        "movieId": (movie * 1000 - 7).tolist(),
        "genre": (movie % 6).tolist(),
        "label": label,
    }


def config_of(**changes: Any) -> TrainerConfig:
    return TrainerConfig.model_validate({**small_config().model_dump(), **changes})


class Trained(NamedTuple):
    dataset: str
    model_dir: Path
    config: TrainerConfig
    result: dict[str, Any]

    @property
    def start(self) -> WarmStart:
        return WarmStart(self.dataset, str(self.model_dir))


def trained(directory: Path, config: TrainerConfig, *, hashed: tuple[str, ...] = (), buckets: int = 2) -> Trained:
    write_dataset(
        directory / "dataset",
        rows_of(500, 1, 0),
        rows_of(90, 2, 0),
        FEATURES,
        hashed=hashed,
        num_oov_buckets=buckets,
        frequency_threshold=20,
        positive_at=0.5,
    )
    dataset, model_dir = str(directory / "dataset"), directory / "model"
    return Trained(dataset, model_dir, config, train(dataset, str(model_dir), config))


def next_log(directory: Path, *, hashed: tuple[str, ...] = (), buckets: int = 2) -> str:
    """Writes a log with some new users and movies, and without some former ones."""
    write_dataset(
        directory,
        rows_of(500, 3, 6),
        rows_of(90, 4, 6),
        FEATURES,
        hashed=hashed,
        num_oov_buckets=buckets,
        frequency_threshold=20,
        positive_at=0.5,
    )
    return str(directory)


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("former"), config_of(refit=True))


def exported(model_dir: Path) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(model_dir / "export" / "variables" / "variables"))
    return {
        name.split("/")[1] if name.startswith("tables/") else "bias": reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.startswith(("tables/", "bias/"))
    }


def saved(model_dir: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of the state by name, such as "tables/userId"."""
    reader = tf.train.load_checkpoint(str(model_dir / "state" / "weights"))
    end = "/.ATTRIBUTES/VARIABLE_VALUE"
    names = [name for name in reader.get_variable_to_shape_map() if name.endswith(end)]
    return {name.removesuffix(end): reader.get_tensor(name) for name in names}


def vocabulary(dataset: str, name: str) -> list[str]:
    return Path(dataset, "vocabulary", f"{name}.txt").read_text().splitlines()


def carried(former: Trained, dataset: str, config: TrainerConfig) -> tuple[Any, dict[str, Any]]:
    """Returns a new model with the former weights, and the counts."""
    data = Dataset.open(dataset, config)
    config = with_automatic_values(config, data)
    model = compiled_model(data, config, make_strategy("cpu"))
    make_slots(model)
    opened = Former.open(former.start, former.result["fingerprint"], data, config)
    counts = opened.carry_over(model, data)
    return model, {name: count.model_dump() for name, count in counts.items()}


def test_the_state_is_that_of_the_export(former: Trained) -> None:
    state, export = saved(former.model_dir), exported(former.model_dir)
    assert {f"tables/{name}" for name in FEATURES} | {"bias", "step"} < state.keys()
    for name in FEATURES:
        np.testing.assert_array_equal(state[f"tables/{name}"], export[name])
        moments = state[f"table_slots/{name}/moments"]
        assert moments.shape == (len(export[name]), 2 * export[name].shape[1]) and np.abs(moments).max() > 0
    np.testing.assert_array_equal(state["bias"], export["bias"])
    # Ten steps of 590 rows an epoch.
    assert state["step"] == 10 * former.result["train"]["best_epoch"]
    described = json.loads((former.model_dir / "state" / "state.json").read_text())
    assert described["fingerprint"] == former.result["fingerprint"]


def test_only_the_state_is_kept(former: Trained) -> None:
    assert {path.name for path in former.model_dir.iterdir()} == {
        "export",
        "export_before_refit",
        "metrics.json",
        "refit",
        "state",
        "tensorboard",
    }
    assert [path.name for path in (former.model_dir / "refit").iterdir()] == ["tensorboard"]


@pytest.mark.parametrize("optimizer", ["lazy_adam", "adam", "adagrad", "sgd"])
def test_rows_are_copied_by_token(tmp_path: Path, optimizer: str) -> None:
    config = config_of(optimizer={"name": optimizer, "learning_rate": 0.003}, epochs=1)
    former, dataset = trained(tmp_path / "former", config), next_log(tmp_path / "next")
    model, counts = carried(former, dataset, config)
    state = saved(former.model_dir)
    slot_names = {"lazy_adam": ["moments"], "adam": ["m", "v"], "adagrad": ["accumulator"], "sgd": []}[optimizer]
    for name, table in model.tables.items():
        old, new = vocabulary(former.dataset, name), vocabulary(dataset, name)
        assert counts[name] == {
            "kept": len(set(old) & set(new)),
            "new": len(set(new) - set(old)),
            "gone": len(set(old) - set(new)),
        }
        for row, token in enumerate([*new, None, None]):
            bucket = row - len(new) if token is None else tf.strings.to_hash_bucket_fast([token], 2).numpy()[0]
            source = old.index(token) if token in old else len(old) + bucket
            np.testing.assert_array_equal(table[row], state[f"tables/{name}"][source])
            for slot in slot_names:
                expected = state[f"table_slots/{name}/{slot}"][source]
                if token is not None and token not in old:
                    # As a new optimizer has it.
                    expected = np.full_like(expected, 0.1 if optimizer == "adagrad" else 0.0)
                np.testing.assert_array_equal(model.optimizer.get_slot(table, slot)[row], expected)
    # There is something of each kind to be copied.
    assert min(counts["userId"].values()) > 0 and counts["country"] == {"kept": 4, "new": 0, "gone": 0}
    assert float(model.bias) == state["bias"]
    for slot in slot_names:
        np.testing.assert_array_equal(model.optimizer.get_slot(model.bias, slot), state[f"bias_slots/{slot}"])
    assert int(model.optimizer.iterations) == state["step"] == 8


def test_hashed_features_are_copied_by_bin(tmp_path: Path) -> None:
    hashed = ("userId", "genre")
    config = config_of(hashing={name: {"num_bins": 32} for name in hashed}, epochs=1)
    former = trained(tmp_path / "former", config, hashed=hashed)
    model, counts = carried(former, next_log(tmp_path / "next", hashed=hashed), config)
    state = saved(former.model_dir)
    for name in hashed:
        assert counts[name] == {"kept": 32, "new": 0, "gone": 0}
        np.testing.assert_array_equal(model.tables[name], state[f"tables/{name}"])
        slot = model.optimizer.get_slot(model.tables[name], "moments")
        np.testing.assert_array_equal(slot, state[f"table_slots/{name}/moments"])
    assert counts["movieId"]["new"] > 0


def test_other_oov_buckets_start_at_the_mean_of_the_former_ones(former: Trained, tmp_path: Path) -> None:
    model, _ = carried(former, next_log(tmp_path, buckets=3), former.config)
    for name, table in model.tables.items():
        mean = saved(former.model_dir)[f"tables/{name}"][-2:].mean(axis=0)
        np.testing.assert_allclose(table[-3:], np.stack([mean] * 3), rtol=1e-6)
        assert not np.any(model.optimizer.get_slot(table, "moments")[-3:])


def logits(dataset: str, model_dir: Path, rows: Mapping[str, Any]) -> np.ndarray:
    """Compute the logits of an export without it, since probabilities near 1 have few digits."""
    tables, sums = exported(model_dir), {"user": np.float64(0.0), "item": np.float64(0.0)}
    for name, side in FEATURES.items():
        tokens = vocabulary(dataset, name)
        texts = [str(token) for token in rows[name]]
        buckets = tf.strings.to_hash_bucket_fast(texts, len(tables[name]) - len(tokens)).numpy() + len(tokens)
        index = [tokens.index(t) if t in tokens else b for t, b in zip(texts, buckets, strict=True)]
        sums[side] = sums[side] + tables[name][index].astype(np.float64)
    u, v = sums["user"], sums["item"]
    return np.sum(u[:, :-1] * v[:, :-1], axis=1) + u[:, -1] + v[:, -1] + float(tables["bias"])


def without_gone(rows: Mapping[str, Any], old: str, new: str) -> dict[str, list[Any]]:
    gone = {name: {*vocabulary(old, name)} - {*vocabulary(new, name)} for name in FEATURES}
    kept = [i for i in range(len(rows["label"])) if not any(str(rows[name][i]) in gone[name] for name in FEATURES)]
    return {name: [rows[name][i] for i in kept] for name in FEATURES}


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("changed", [True, False])
def test_where_no_epoch_is_better_the_answers_are_the_former_ones(
    former: Trained, tmp_path: Path, refit: bool, changed: bool
) -> None:
    dataset = next_log(tmp_path / "next") if changed else former.dataset
    # A learning rate so high that every epoch is worse.
    config = config_of(refit=refit, optimizer={"learning_rate": 10.0}, early_stopping={"patience": 2})
    result = train(dataset, str(tmp_path / "model"), config, start=former.start)
    assert result["train"]["best_epoch"] == 0 and result["train"]["stopped_early"]
    assert len(result["train"]["epochs"]) == 2
    # Tokens that both vocabularies have, new ones, and some that neither has. Those that are gone are now OOV.
    shown, unseen = rows_of(150, 5, 6), rows_of(50, 6, 30)
    rows = without_gone({name: [*shown[name], *unseen[name]] for name in shown}, former.dataset, dataset)
    assert {"u6", "u24", "u31"} < {*rows["userId"]}
    before = logits(former.dataset, former.model_dir, rows)
    np.testing.assert_allclose(logits(dataset, tmp_path / "model", rows), before, atol=1e-6)
    # They are the logits of the export.
    loaded = tf.saved_model.load(str(tmp_path / "model" / "export"))
    tokens = {name: tf.constant(rows[name], None if isinstance(rows[name][0], str) else tf.int64) for name in FEATURES}
    probability = loaded.signatures["serving_default"](**tokens)["probability"].numpy()
    mapped = float(loaded.calibration_scale) * before + float(loaded.calibration_offset)
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-mapped)), atol=1e-6)
    if not changed:
        for name, table in exported(tmp_path / "model").items():
            np.testing.assert_array_equal(table, exported(former.model_dir)[name])
    assert {name: value for name, value in result["eval"].items() if name != "accuracy"} == pytest.approx(
        {name: value for name, value in result["warm_start"]["eval"].items() if name != "accuracy"}
    )
    if refit:
        assert result["train"]["refit"]["epochs"] == []
    # The state is once more that of the export, slots included.
    for name, value in saved(tmp_path / "model").items():
        if not changed:
            np.testing.assert_array_equal(value, saved(former.model_dir)[name])


def test_training_goes_on_from_the_former_weights(former: Trained, tmp_path: Path) -> None:
    dataset = next_log(tmp_path / "next")
    config = config_of(refit=False, epochs=1)
    warm = train(dataset, str(tmp_path / "warm"), config, start=former.start)
    cold = train(dataset, str(tmp_path / "cold"), config)
    started = warm["warm_start"]
    assert started["from"] == former.result["fingerprint"] and started["features"]["country"]["kept"] == 4
    assert cold["warm_start"] is None and "cold" not in started
    first = {name: run["train"]["epochs"][0]["train"]["label-crossentropy"] for name, run in (("w", warm), ("c", cold))}
    assert first["w"] < first["c"] - 0.005


def test_the_average_includes_the_former_weights(former: Trained, tmp_path: Path) -> None:
    tables = {}
    for decay in (0.7, 0.0):
        # Without eval rows, the last epoch counts.
        write_dataset(tmp_path / "next", rows_of(500, 3, 0), rows_of(0, 4, 0), FEATURES, frequency_threshold=20)
        config = config_of(weight_averaging=decay, epochs=1)
        model_dir = tmp_path / str(decay)
        train(str(tmp_path / "next"), str(model_dir), config, start=former.start)
        tables[decay] = exported(model_dir)["country"][:4]
    old, new = (vocabulary(d, "country") for d in (former.dataset, str(tmp_path / "next")))
    before = saved(former.model_dir)["tables/country"][[old.index(token) for token in new]]
    np.testing.assert_allclose(tables[0.7], 0.7 * before + 0.3 * tables[0.0], rtol=1e-4, atol=1e-6)


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
    result = train(former.dataset, str(tmp_path / "model"), config_of(epochs=1), start=start)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(result["warm_start"]["cold"])


def test_weights_that_cannot_be_read_are_named(former: Trained, tmp_path: Path) -> None:
    shutil.copytree(former.model_dir, tmp_path / "former")
    path = tmp_path / "former" / "state" / "weights.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DotbiasError, match=r"start from, .*former/state/weights, cannot be read .* Delete that"):
        start = WarmStart(former.dataset, str(tmp_path / "former"))
        train(former.dataset, str(tmp_path / "model"), config_of(epochs=1), start=start)


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
    assert state is not None and state.warm_start is not None and not state.epochs
