"""Checks that a warm start copies rows by token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.datasets import write_dataset
from tests.trainer.loop.warm_starts import (
    FEATURES,
    Trained,
    carried,
    config_of,
    exported,
    next_log,
    rows_of,
    saved,
    trained,
    vocabulary,
)
from trainer.train import train


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


@pytest.mark.parametrize(
    "optimizer", ["lazy_adam", *(pytest.param(name, marks=pytest.mark.slow) for name in ("adam", "adagrad", "sgd"))]
)
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
