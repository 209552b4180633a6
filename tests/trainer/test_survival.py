"""Checks that a stopped or killed training goes on with the same command and ends with the same result."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.manifest import DotbiasError
from tests.trainer.conftest import SIDES, random_rows
from tests.trainer.datasets import write_dataset
from tests.trainer.runs import Finished, Killed, assert_same_weights, without_times
from trainer.loop.interruption import Interrupted, PendingSignals
from trainer.train import train

ROOT = Path(__file__).parents[2]
# Nine steps an epoch, three in one call: a checkpoint after each call.
OFTEN = {"every_steps": 1}


def at_row(row: int, act: Callable[[], None]) -> Callable[..., None]:
    """Makes a progress function that acts once, when that many rows are done."""
    left = [row]

    def progress(stage: str, done: int, total: int | None, metrics: Mapping[str, float]) -> None:
        if left and done >= left[0]:
            left.clear()
            act()

    return progress


def die() -> None:
    raise Killed


def config_of(run: Finished, **changes: Any) -> Any:
    return type(run.config).model_validate({**run.config.model_dump(), **changes})


def resume(run: Finished, model_dir: Path, config: Any) -> tuple[dict[str, Any], list[int]]:
    done: list[int] = []
    result = train(run.data.path, str(model_dir), config, lambda *call: done.append(call[1]))
    return result, done


@pytest.mark.parametrize(
    # The process dies before the checkpoint of what it has just done.
    ("row", "goes_on_at"),
    [pytest.param(384, 192, marks=pytest.mark.slow), (1100, 550 + 384)],
)
def test_a_killed_training_goes_on_in_the_middle_of_an_epoch(
    finished: Finished,
    tmp_path: Path,
    row: int,
    goes_on_at: int,
) -> None:
    config = config_of(finished, checkpoint=OFTEN)
    with pytest.raises(Killed):
        train(finished.data.path, str(tmp_path), config, at_row(row, die))
    result, done = resume(finished, tmp_path, config)
    assert done[0] == goes_on_at and done[-1] == 1650
    assert without_times(result) | {"config": None} == without_times(finished.result) | {"config": None}
    assert_same_weights(tmp_path, finished.model_dir)


# In the middle of an epoch, and in its last call.
@pytest.mark.slow
@pytest.mark.parametrize(("number", "row"), [(signal.SIGTERM, 384), (signal.SIGINT, 550)])
def test_a_signal_saves_a_checkpoint_first(
    finished: Finished,
    tmp_path: Path,
    number: signal.Signals,
    row: int,
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="the same command goes on after") as stop:
        train(finished.data.path, str(tmp_path), finished.config, at_row(row, lambda: os.kill(os.getpid(), number)))
    assert stop.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    assert not (tmp_path / "export").exists()
    result, done = resume(finished, tmp_path, finished.config)
    assert done[0] == row
    assert without_times(result) == without_times(finished.result)
    assert_same_weights(tmp_path, finished.model_dir)


def test_the_second_signal_of_a_kind_acts_at_once() -> None:
    # A shell's background job begins with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with PendingSignals() as signals:
            signal.raise_signal(signal.SIGINT)
            assert signals.received == {signal.SIGINT}
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_checkpoints_may_be_asked_for_more_often_in_a_run_that_goes_on(
    finished: Finished,
    tmp_path: Path,
) -> None:
    with pytest.raises(Killed):
        train(finished.data.path, str(tmp_path), finished.config, at_row(742, die))
    _, done = resume(finished, tmp_path, config_of(finished, checkpoint={"every_minutes": 0.1, "keep": 5}))
    assert done[0] == 550


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epochs_before", "kept"), [(0, "no checkpoint yet"), (1, "kept: .*period-000001-step-00000000")]
)
def test_a_loss_that_is_not_finite_ends_the_training_by_its_step(
    finished: Finished,
    tmp_path: Path,
    epochs_before: int,
    kept: str,
) -> None:
    config = config_of(finished)
    rows = epochs_before * 550
    poison = at_row(rows + 192, lambda: set_learning_rate(float("nan")))
    message = rf"step 6 of 9 of epoch {epochs_before + 1}.*learning_rate.*{kept}"
    optimizers.clear()
    with pytest.raises(DotbiasError, match=message):
        train(finished.data.path, str(tmp_path), config, poison)
    assert not (tmp_path / "export").exists() and not (tmp_path / "metrics.json").exists()
    if epochs_before:
        result, done = resume(finished, tmp_path, config)
        assert done[0] == 550
        assert without_times(result) == without_times(finished.result)


optimizers: list[Any] = []


def set_learning_rate(value: float) -> None:
    """Changes the learning rate of the training that runs."""
    optimizers[-1].learning_rate.assign(value)


@pytest.fixture(autouse=True)
def _remember_optimizers(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer import build as module

    make = module.make_optimizer
    monkeypatch.setattr(module, "make_optimizer", lambda *args: optimizers.append(make(*args)) or optimizers[-1])


PROGRAM = """
import sys, logging
from trainer.config import TrainerConfig
from trainer.loop.interruption import Interrupted
from trainer.train import train
logging.basicConfig(level=logging.INFO)
config = TrainerConfig.model_validate_json(sys.argv[3])
try:
    train(sys.argv[1], sys.argv[2], config, lambda stage, done, *_: print(stage, done, flush=True))
except Interrupted as stop:
    sys.exit(stop.exit_code)
"""


def start(dataset: Path, model_dir: Path, config: Mapping[str, Any]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(dataset), str(model_dir), json.dumps(config)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stop_at(process: subprocess.Popen[str], stage: str, row: int, number: int) -> int:
    """Sends a signal as soon as that many rows of a stage are reported; returns the exit code."""
    assert process.stdout is not None
    for line in process.stdout:
        name, done = line.split()
        if name == stage and int(done) >= row:
            process.send_signal(number)
            break
    process.communicate()
    return process.returncode


ROWS, EVAL_ROWS = 20_000, 2000


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Makes a directory with a dataset and a finished training, and returns its configuration."""
    directory = tmp_path_factory.mktemp("undisturbed")
    train_rows, eval_rows = random_rows(ROWS, 1, users=500), random_rows(EVAL_ROWS, 2, users=500)
    write_dataset(directory / "dataset", train_rows, eval_rows, SIDES, rows_per_shard=3000)
    config = {
        "embedding_dim": 8,
        "batch_size": 64,
        "epochs": 3,
        "steps_per_execution": 4,
        "deterministic": True,
        "checkpoint": {"every_steps": 20},
    }
    process = start(directory / "dataset", directory / "model", config)
    _, log = process.communicate()
    assert process.returncode == 0, log
    return directory, config


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "rows", "numbers"),
    [
        ("train", 3 * ROWS, [signal.SIGKILL] * 5 + [signal.SIGTERM]),
        # At least one epoch.
        ("refit", ROWS + EVAL_ROWS, [signal.SIGKILL] * 2 + [signal.SIGTERM]),
    ],
)
def test_killed_again_and_again_and_once_told_to_end(
    undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path, stage: str, rows: int, numbers: list[signal.Signals]
) -> None:
    directory, config = undisturbed
    moments = sorted(random.Random(5).sample(range(rows), len(numbers)))
    for moment, number in zip(moments, numbers, strict=True):
        code = stop_at(start(directory / "dataset", tmp_path, config), stage, moment, number)
        assert code == (143 if number == signal.SIGTERM else -signal.SIGKILL)
        assert not (tmp_path / "metrics.json").exists() and not (tmp_path / "export").exists()
    last = start(directory / "dataset", tmp_path, config)
    progress, log = last.communicate()
    assert last.returncode == 0
    assert "INFO:trainer.train:Going on after step" in log
    # It saved a checkpoint when the signal came, and repeats no earlier stage.
    first_stage, first_done = progress.split()[:2]
    assert first_stage == stage and int(first_done) >= moments[-1]

    ours, theirs = (json.loads((path / "metrics.json").read_text()) for path in (tmp_path, directory / "model"))
    assert without_times(ours) == without_times(theirs)
    assert_same_weights(tmp_path, directory / "model")


@pytest.mark.slow
def test_the_command_ends_with_143_after_sigterm(tmp_path: Path) -> None:
    write_dataset(tmp_path / "dataset", random_rows(5000, 1), random_rows(500, 2), SIDES)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"trainer": {"batch_size": 16, "steps_per_execution": 2}}))
    command = [sys.executable, "-m", "trainer", "--dataset", str(tmp_path / "dataset")]
    command += ["--model_dir", str(tmp_path / "model"), "--config", str(tmp_path / "config.yaml")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    events = tmp_path / "model" / "checkpoints"
    while not list(events.glob("*.json")):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate()
    assert process.returncode == 143
    assert "SIGTERM; the same command goes on after" in log
