"""Saves and restores checkpoints, from which an interrupted training goes on.

```
<model_dir>/checkpoints/
  period-000003-step-00000000.index, .data-*   variables with optimizer slots, see `model.variables`
  period-000003-step-00000000.json             their `TrainingState`; written last, in one rename
  period-000003-step-00001024.*                1024 steps into the fourth period, see `data.periods`
```

A checkpoint without its state was not finished, and is ignored.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf
from pydantic import BaseModel, ConfigDict

from pipeline.manifest import DotbiasError, join
from trainer.config import CHECKPOINT_DIRECTORY
from trainer.data.files import write_text

# TensorFlow and pydantic raise these for a damaged file; a data file that was cut off is an `IndexError`.
UNREADABLE = (tf.errors.OpError, ValueError, LookupError)
_log = logging.getLogger("trainer.train")


class PeriodRecord(BaseModel):
    """Holds the metrics of a period by name; `eval` is empty without an eval split.

    `epoch` is the number of epochs at its end, with a fraction inside of one, and `rows` that of all rows so far.
    """

    epoch: int | float
    rows: int
    seconds: float
    train: dict[str, float]
    eval: dict[str, float]


class CarriedOver(BaseModel):
    """Counts the tokens of a feature that a warm start found in both vocabularies, or in one only; or its bins."""

    kept: int
    new: int
    gone: int


class WarmStartRecord(BaseModel):
    """Records a warm start: what was carried over, by feature, and `eval`, the metrics before the first step."""

    features: dict[str, CarriedOver]
    eval: dict[str, float]


class TrainingState(BaseModel):
    """Holds the progress of a training: `periods` are complete, and `steps_in_period` steps of the next one are done.

    `fingerprint` identifies the training, see `output.result.training_fingerprint`. `num_workers` workers shared the
    rows of the epoch, so another number of workers cannot go on in its middle. `best_period` counts from 1, and is 0
    while the weights that a warm start began with are the best.
    """

    model_config = ConfigDict(validate_assignment=True)

    fingerprint: str
    num_workers: int = 1
    periods: list[PeriodRecord] = []
    steps_in_period: int = 0
    seconds_in_period: float = 0.0
    best_period: int = 0
    best_value: float | None = None
    stopped_early: bool = False
    warm_start: WarmStartRecord | None = None

    @property
    def is_saved(self) -> bool:
        """Return whether there is a checkpoint of this state; period 0 has one only after a warm start."""
        return bool(self.periods or self.steps_in_period or self.warm_start)

    @property
    def periods_without_improvement(self) -> int:
        return len(self.periods) - self.best_period

    @property
    def best_epoch(self) -> float:
        """Return the number of epochs after the best period."""
        return self.periods[self.best_period - 1].epoch if self.best_period else 0

    @property
    def name(self) -> str:
        """Return the name of the checkpoint; names sort by time."""
        return checkpoint_name(len(self.periods), self.steps_in_period)


def checkpoint_name(periods: int, steps_in_period: int = 0) -> str:
    return f"period-{periods:06d}-step-{steps_in_period:08d}"


class Saved(Protocol):
    """Writes and reads variables: `Variables`, or `tf.train.Checkpoint` on a TPU, whose tables only it can read."""

    def write(self, path: str, /) -> Any: ...

    def read(self, path: str, /) -> Any: ...


class CheckpointDirectory:
    """Saves, finds and deletes the checkpoints of one training.

    Args:
        model_dir: the directory of the training.
        keep: how many of the last checkpoints stay; that of the best period stays too.
        worker: 0 writes for all; the others only take part, since reading the variables of a `tf.distribute` strategy
            can need every worker.
        num_workers: the number of workers now.
        whole_epochs: whether each period is an epoch.
    """

    def __init__(
        self, model_dir: str, keep: int = 2, worker: int = 0, num_workers: int = 1, *, whole_epochs: bool = True
    ) -> None:
        self.model_dir = model_dir
        self.path = join(model_dir, CHECKPOINT_DIRECTORY)
        self._keep = keep
        self._worker = worker
        self._num_workers = num_workers
        self._whole_epochs = whole_epochs

    def last_state(self) -> TrainingState | None:
        """Return the state of the newest checkpoint that can be used, None if there is none; warn of others."""
        names = self._complete()
        for i, name in enumerate(reversed(names)):
            path = join(self.path, name)
            try:
                with tf.io.gfile.GFile(path + ".json") as file:
                    state = TrainingState.model_validate_json(file.read())
                _read_through(path)
                reason = ""
                within = state.steps_in_period or (state.periods and not self._whole_epochs)
                if within and state.num_workers != self._num_workers:
                    reason = f"in the middle of an epoch of {state.num_workers} workers, now {self._num_workers}"
            except UNREADABLE as error:
                reason = short(error)
            if not reason:
                return state
            instead = "the one before is taken" if i + 1 < len(names) else "training begins anew"
            _log.warning("Checkpoint %s cannot be used (%s); %s.", path, reason, instead)
        return None

    def delete_after(self, state: TrainingState) -> None:
        """Delete checkpoints newer than that of `state`, and unfinished ones."""
        kept = [name for name in self._complete() if name <= state.name]
        for path in tf.io.gfile.glob(join(self.path, "*")):
            if os.path.basename(path).partition(".")[0] not in kept:
                _remove(path)

    def last_path(self) -> str | None:
        """Return the path of the newest checkpoint, for a message."""
        names = self._complete()
        return join(self.path, names[-1]) if names else None

    def save(self, checkpoint: Saved, state: TrainingState) -> None:
        """Write the variables, then the state, then delete checkpoints that are no longer needed.

        Raises:
            DotbiasError: it cannot be written, for example because the disk is full; the one before is intact.
        """
        if self._worker:
            aside = join(self.path, f"worker-{self._worker}")
            checkpoint.write(join(aside, "unused"))
            tf.io.gfile.rmtree(aside)
            return
        path = join(self.path, state.name)
        before = self.last_path()
        try:
            checkpoint.write(path)
            write_text(path + ".json", state.model_dump_json(indent=2))
        except (tf.errors.OpError, OSError) as error:
            self._delete(state.name)
            kept = f"{before} is intact, and the same command goes on from there" if before else "there is none before"
            raise DotbiasError(f"Checkpoint {path} cannot be written ({short(error)}); {kept}.") from error
        names = self._complete()
        kept_names = {checkpoint_name(state.best_period), *names[-self._keep :]}
        for name in names:
            if name not in kept_names:
                self._delete(name)

    def pass_through(self, checkpoint: tf.train.Checkpoint, read: Callable[[str], None]) -> None:
        """Write the variables to a file, have it read, and delete it."""
        path = join(self.path, "passing-through")
        try:
            checkpoint.write(path)
            read(path)
        except (tf.errors.OpError, OSError) as error:
            raise DotbiasError(f"{path} cannot be written or read ({short(error)}).") from error
        finally:
            self._delete("passing-through")

    def restore(self, checkpoint: Saved, name: str) -> None:
        """Read the checkpoint `name` into all variables; raise `DotbiasError` if it cannot be read."""
        try:
            status = checkpoint.read(join(self.path, name))
            if status is not None:
                # The file may have more, such as what only a TPU needs.
                status.assert_existing_objects_matched().expect_partial()
        except UNREADABLE as error:
            raise DotbiasError(
                f"Checkpoint {join(self.path, name)} cannot be read ({short(error)}). "
                f"Delete {self.model_dir} to train again."
            ) from error

    def _complete(self) -> list[str]:
        """Return the names of the checkpoints with a state, oldest first."""
        paths = tf.io.gfile.glob(join(self.path, "period-*.json"))
        return sorted(os.path.basename(path).removesuffix(".json") for path in paths)

    def _delete(self, name: str) -> None:
        # The state first, so that an interrupted deletion leaves a checkpoint that does not look complete.
        for ending in (".json", ".*", "_temp"):
            for path in tf.io.gfile.glob(join(self.path, name + ending)):
                _remove(path)


def _remove(path: str) -> None:
    """Delete a file, or a directory, such as TensorFlow makes while it writes."""
    with contextlib.suppress(tf.errors.NotFoundError):
        if tf.io.gfile.isdir(path):
            tf.io.gfile.rmtree(path)
        else:
            tf.io.gfile.remove(path)


def _read_through(path: str) -> None:
    """Read every tensor, one at a time, so that TensorFlow compares the checksums."""
    reader = tf.train.load_checkpoint(path)
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)


def short(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def improves(monitor: str, value: float, best: float | None) -> bool:
    """Return whether a value is better than the best so far."""
    if best is None:
        return True
    return value > best if more_is_better(monitor) else value < best


def more_is_better(monitor: str) -> bool:
    """Return whether higher values of an eval metric are better; lower ones are for a cross-entropy."""
    return not monitor.endswith("-crossentropy")
