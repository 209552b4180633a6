from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from trainer.checkpoint import CheckpointDirectory, EpochRecord, TrainingState, improves


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


def test_the_last_two_and_the_best_epoch_are_kept(tmp_path: Path) -> None:
    directory = CheckpointDirectory(str(tmp_path))
    assert directory.read_state() is None
    Path(directory.path).mkdir()
    variable = tf.Variable(0.0)
    checkpoint = tf.train.Checkpoint(variable=variable)
    state = TrainingState(run="a")
    for epoch in range(1, 6):
        variable.assign(epoch)
        state.epochs.append(EpochRecord(epoch=epoch, seconds=1, train={}, eval={"auc": 0.5}))
        state.best_epoch = min(epoch, 2)
        directory.save(checkpoint, state)
    assert {path.name.split(".")[0] for path in Path(directory.path).glob("epoch-*")} == {
        "epoch-0002",
        "epoch-0004",
        "epoch-0005",
    }
    directory.restore(checkpoint, 2)
    assert variable.numpy() == 2
    assert directory.read_state() == state
    assert state.epochs_without_improvement == 3
