from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

from pipeline.manifest import DotbiasError
from trainer.loop.checkpoint import CheckpointDirectory, PeriodRecord, TrainingState, checkpoint_name, improves


@pytest.mark.parametrize(
    ("monitor", "value", "best", "expected"),
    [
        ("auc", 0.1, None, True),
        ("auc", 0.8, 0.7, True),
        ("auc", 0.7, 0.7, False),
        ("auc", float("nan"), 0.7, False),
        ("label-crossentropy", 0.6, 0.5, False),
        ("label-crossentropy", 0.4, 0.5, True),
    ],
)
def test_improves(monitor: str, value: float, best: float | None, expected: bool) -> None:
    assert improves(monitor, value, best) == expected


def state_after(epochs: int, steps: int = 0, best: int = 0) -> TrainingState:
    records = [PeriodRecord(epoch=e + 1, rows=0, seconds=1, train={}, eval={"auc": 0.5}) for e in range(epochs)]
    return TrainingState(fingerprint="a", periods=records, steps_in_period=steps, best_period=best)


def names(directory: CheckpointDirectory) -> set[str]:
    return {path.name.split(".")[0] for path in Path(directory.path).glob("period-*")}


@pytest.fixture
def directory(tmp_path: Path) -> CheckpointDirectory:
    return CheckpointDirectory(str(tmp_path))


@pytest.fixture
def variable() -> tf.Variable:
    return tf.Variable(tf.zeros(1000))


def save(directory: CheckpointDirectory, variable: tf.Variable, value: float, state: TrainingState) -> None:
    variable.assign(tf.fill([1000], float(value)))
    directory.save(tf.train.Checkpoint(variable=variable), state)


def test_the_last_two_and_the_best_period_are_kept(directory: CheckpointDirectory, variable: tf.Variable) -> None:
    assert directory.last_state() is None and directory.last_path() is None
    for epochs in range(1, 5):
        save(directory, variable, epochs, state_after(epochs, best=min(epochs, 2)))
    last = state_after(4, steps=128, best=2)
    save(directory, variable, 4.5, last)
    assert names(directory) == {
        "period-000002-step-00000000",
        "period-000004-step-00000000",
        "period-000004-step-00000128",
    }
    assert directory.last_state() == last and last.periods_without_improvement == 2
    directory.restore(tf.train.Checkpoint(variable=variable), checkpoint_name(2))
    assert variable.numpy()[0] == 2


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, empty, Path.unlink])
@pytest.mark.parametrize("ending", [".json", ".index", ".data-00000-of-00001"])
def test_instead_of_a_damaged_checkpoint_the_one_before_is_taken(
    directory: CheckpointDirectory,
    variable: tf.Variable,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    ending: str,
) -> None:
    before, last = state_after(1, best=1), state_after(1, steps=64, best=1)
    save(directory, variable, 1, before)
    save(directory, variable, 2, last)
    assert directory.last_state() == last
    path = Path(directory.path, last.name + ending)
    if (damage, ending) == (flip, ".json"):
        # JSON has no checksum, but a state that was half written is no JSON.
        path.write_text(path.read_text().replace('"periods"', '"periods'))
    else:
        damage(path)
    assert directory.last_state() == before
    # Without a state it is no checkpoint to begin with.
    assert (f"{last.name} cannot be used" in caplog.text) == ((damage, ending) != (Path.unlink, ".json"))
    # A process that is killed while it writes leaves this.
    Path(directory.path, "period-000001-step-00000128_temp").mkdir()
    directory.delete_after(before)
    assert names(directory) == {before.name}


def test_the_middle_of_an_epoch_is_of_use_to_as_many_workers_only(
    directory: CheckpointDirectory, variable: tf.Variable, caplog: pytest.LogCaptureFixture
) -> None:
    save(directory, variable, 1, state_after(1, best=1))
    save(directory, variable, 2, state_after(1, steps=64, best=1))
    of_two = CheckpointDirectory(directory.model_dir, num_workers=2)
    assert of_two.last_state() == state_after(1, best=1)
    assert "epoch of 1 workers, now 2); the one before" in caplog.text
    # A period by rows can end anywhere in an epoch.
    assert CheckpointDirectory(directory.model_dir, num_workers=2, whole_epochs=False).last_state() is None
    assert CheckpointDirectory(directory.model_dir, whole_epochs=False).last_state() == state_after(1, 64, best=1)


def test_a_file_that_may_not_grow_leaves_the_last_checkpoint_intact(
    directory: CheckpointDirectory, variable: tf.Variable
) -> None:
    save(directory, variable, 1, state_after(1, best=1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # Less than the variable takes. Python ignores the signal, so that the write fails.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(DotbiasError, match=r"cannot be written \(.*period-000001-step-00000000 is intact"):
            save(directory, variable, 2, state_after(1, steps=64, best=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(directory) == {"period-000001-step-00000000"}
    assert directory.last_state() == state_after(1, best=1)
    directory.restore(tf.train.Checkpoint(variable=variable), checkpoint_name(1))
    assert variable.numpy()[0] == 1


def test_another_worker_takes_part_and_leaves_nothing(directory: CheckpointDirectory, variable: tf.Variable) -> None:
    other = CheckpointDirectory(directory.model_dir, worker=1, num_workers=2)
    Path(other.path).mkdir()
    save(other, variable, 1, state_after(1, best=1))
    assert list(Path(other.path).iterdir()) == []
