"""What a training needs to go on after an interruption, on disk.

```
<model_dir>/checkpoints/
  epoch-0003.index, .data-*   variables with optimizer slots, as `tf.train.Checkpoint` writes them
  state.json                  which epochs are done, which was the best; replaced in one rename after the checkpoint
```
"""

from __future__ import annotations

import json
import os
from typing import Any

import tensorflow as tf
from pydantic import BaseModel, ConfigDict

from pipeline.manifest import join

CHECKPOINT_DIRECTORY = "checkpoints"
_STATE_NAME = "state.json"
# The last one, and the one before for when it cannot be read.
_KEPT = 2


class EpochRecord(BaseModel):
    """Metrics by name. `epoch` counts from 1; `eval` is empty without an eval split."""

    epoch: int
    seconds: float
    train: dict[str, float]
    eval: dict[str, float]


class TrainingState(BaseModel):
    """What is known after the last complete epoch. `run` identifies configuration and dataset."""

    model_config = ConfigDict(validate_assignment=True)

    run: str
    epochs: list[EpochRecord] = []
    best_epoch: int = 0
    best_value: float | None = None
    stopped_early: bool = False

    @property
    def epochs_without_improvement(self) -> int:
        return len(self.epochs) - self.best_epoch


def write_text(path: str, text: str) -> None:
    """Replaces a file in one rename: a reader sees the old text or the new one."""
    with tf.io.gfile.GFile(path + ".tmp", "w") as file:
        file.write(text)
    tf.io.gfile.rename(path + ".tmp", path, overwrite=True)


class CheckpointDirectory:
    """The checkpoints of one training. An epoch is done when `state.json` says so."""

    def __init__(self, model_dir: str) -> None:
        self.model_dir = model_dir
        self.path = join(model_dir, CHECKPOINT_DIRECTORY)

    def read_state(self) -> TrainingState | None:
        """The state of the last complete epoch, None if there is none."""
        path = join(self.path, _STATE_NAME)
        if not tf.io.gfile.exists(path):
            return None
        with tf.io.gfile.GFile(path) as file:
            return TrainingState.model_validate(json.loads(file.read()))

    def save(self, checkpoint: tf.train.Checkpoint, state: TrainingState) -> None:
        """Writes the variables, then the state, then deletes what neither resuming nor the best weights need."""
        epoch = len(state.epochs)
        checkpoint.write(self._prefix(epoch))
        write_text(join(self.path, _STATE_NAME), state.model_dump_json(indent=2))
        kept = {state.best_epoch, *range(epoch - _KEPT + 1, epoch + 1)}
        for path in tf.io.gfile.glob(join(self.path, "epoch-*")):
            if not any(os.path.basename(path).startswith(f"epoch-{e:04d}.") for e in kept):
                tf.io.gfile.remove(path)

    def restore(self, checkpoint: tf.train.Checkpoint, epoch: int) -> Any:
        return checkpoint.read(self._prefix(epoch))

    def _prefix(self, epoch: int) -> str:
        return join(self.path, f"epoch-{epoch:04d}")


def improves(monitor: str, value: float, best: float | None) -> bool:
    """Whether a value of the metric is better than the best so far; AUC goes up, cross-entropy down."""
    if best is None:
        return True
    return value > best if monitor == "auc" else value < best
