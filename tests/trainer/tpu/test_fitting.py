"""A training with `trainer.strategy: tpu`, on a stub of the hardware, gives what one on the CPU gives."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipeline.manifest import DotbiasError
from tests.trainer.conftest import small_config, small_dataset
from tests.trainer.tpu.stub import fit_alone_on_stub, install_running
from trainer.config import EarlyStoppingConfig, OptimizerConfig, SoftmaxConfig, TrainerConfig
from trainer.loop.interruption import Interrupted
from trainer.search.tuning import tune
from trainer.tpu import fitting
from trainer.train import train


def sgd(**options: Any) -> TrainerConfig:
    """The optimizer of the stub."""
    optimizer = OptimizerConfig(name="sgd", learning_rate=3.0)
    return small_config().model_copy(update={"optimizer": optimizer, **options})


def told(result: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of metrics.json that do not depend on the clock."""
    epochs = [{name: record[name] for name in ("train", "eval")} for record in result["train"]["epochs"]]
    numbers = {"epochs": epochs, "refit": result["train"]["refit"], "eval": result["eval"]}
    return numbers | {"calibration": result["calibration"], "best": result["train"]["best_epoch"]}


def assert_equal(ours: Any, theirs: Any) -> None:
    for one, other in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
        assert one == (None if other is None else pytest.approx(other, rel=1e-4)), (ours, theirs)


def answers(export: Path) -> np.ndarray:
    predict = tf.saved_model.load(str(export)).signatures["serving_default"]
    tokens = {"userId": tf.constant([1, 2, 3, -99], tf.int64), "movieId": tf.constant([-7, 993, 1993, 5], tf.int64)}
    return np.array(predict(**tokens)["probability"])


def in_this_process(function: Callable[..., Any], *arguments: Any, progress: Any) -> Any:
    return function(*arguments, progress or (lambda *_: None))


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["cross_entropy", "softmax"])
def test_averages_metrics_and_export_are_those_of_the_cpu(
    objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = sgd()
    if objective == "softmax":
        softmax, ndcg = SoftmaxConfig(candidates=16, in_batch=8), EarlyStoppingConfig(monitor="ndcg")
        config = config.model_copy(update={"objective": "softmax", "softmax": softmax, "early_stopping": ndcg})
    data = small_dataset(tmp_path / "dataset", config)
    on_cpu = train(data.path, str(tmp_path / "cpu"), config)
    install_running(monkeypatch)
    monkeypatch.setattr(fitting, "run_alone", in_this_process)
    on_tpu = train(data.path, str(tmp_path / "tpu"), config.model_copy(update={"strategy": "tpu"}))
    assert_equal(told(on_tpu), told(on_cpu))
    np.testing.assert_allclose(answers(tmp_path / "tpu/export"), answers(tmp_path / "cpu/export"), rtol=1e-4)
    # Nothing of the TPU's can be carried over to a later training.
    assert not (tmp_path / "tpu/state").exists() and (tmp_path / "cpu/state").exists()
    assert not (tmp_path / "tpu/checkpoints").exists()


@pytest.mark.slow
def test_a_refit_in_the_same_process_would_be_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = small_dataset(tmp_path / "dataset", small_config())
    install_running(monkeypatch)
    monkeypatch.setattr(fitting, "run_alone", in_this_process)
    with pytest.raises(RuntimeError, match="TPU is already initialized for embeddings"):
        train(data.path, str(tmp_path / "model"), sgd(strategy="tpu", refit=True, epochs=1))
    assert (tmp_path / "model/export_before_refit/saved_model.pb").exists()


@pytest.mark.slow
def test_with_a_process_for_each_training_and_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = sgd(refit=True)
    data = small_dataset(tmp_path / "dataset", config)
    on_cpu = train(data.path, str(tmp_path / "cpu"), config)
    monkeypatch.setattr(fitting, "fit_alone", fit_alone_on_stub)
    calls: list[tuple[str, int]] = []

    def interrupt(stage: str, rows: int, *_: Any) -> None:
        if (stage, rows) not in calls and (stage, rows) in {("train", 742), ("refit", 832)}:
            os.kill(os.getpid(), signal.SIGTERM)
        calls.append((stage, rows))

    arguments = data.path, str(tmp_path / "tpu"), config.model_copy(update={"strategy": "tpu", "cache": "memory"})
    for place in ("in the middle of the first training", "in that of the refit"):
        with pytest.raises(Interrupted, match="goes on after step"):
            train(*arguments, interrupt)
            pytest.fail(place)
    on_tpu = train(*arguments, interrupt)
    ours, theirs = told(on_tpu), told(on_cpu)
    # The thresholds of AUC follow from the rows that a model is made for: on the CPU, that is the first training.
    for one, other in zip(ours["refit"]["epochs"], theirs["refit"]["epochs"], strict=True):
        for name in ("auc", "pr-auc"):
            assert one["train"].pop(name) == pytest.approx(other["train"].pop(name), abs=3e-3)
    assert_equal(ours, theirs)
    np.testing.assert_allclose(answers(tmp_path / "tpu/export"), answers(tmp_path / "cpu/export"), rtol=1e-4)


def test_a_search_does_not_run_on_a_tpu(tmp_path: Path) -> None:
    data = small_dataset(tmp_path / "dataset", small_config())
    with pytest.raises(DotbiasError, match="a TPU takes one"):
        tune(data.path, str(tmp_path / "tune"), small_config().model_copy(update={"strategy": "tpu"}))
