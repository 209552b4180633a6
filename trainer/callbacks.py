"""What happens between the steps of `model.fit`: progress, checkpoints, early stopping."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from trainer.checkpoint import CheckpointDirectory, EpochRecord, TrainingState, improves
from trainer.evaluate import METRICS

# progress("train", rows done, rows in all or None, {"epoch": 3, "loss": 0.61})
Progress = Callable[[str, int, int | None, Mapping[str, float]], None]


class Speedometer(tf.keras.callbacks.Callback):
    """Reports the rows done, and measures the steady speed: evaluation, checkpoints and compilation left out."""

    def __init__(self, rows_per_epoch: int, epochs: int, batch_size: int, progress: Progress | None) -> None:
        super().__init__()
        self._rows_per_epoch = rows_per_epoch
        self._epochs = epochs
        self._batch_size = batch_size
        self._progress = progress
        self._epoch = 0
        self._began = 0.0
        self._rows_in_epoch = 0
        # (rows, seconds) of the first call, which compiles, and of all others.
        self._first: tuple[int, float] | None = None
        self._rows, self._seconds = 0, 0.0

    @property
    def rows_per_second(self) -> float | None:
        """Compilation excluded, unless all of the training was one call; None if nothing was trained."""
        rows, seconds = (self._rows, self._seconds) if self._rows else self._first or (0, 0.0)
        return rows / seconds if seconds else None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self._rows_in_epoch = 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """`batch` is the last of the `steps_per_execution` that ran in this call."""
        seconds = time.perf_counter() - self._began
        done = min((batch + 1) * self._batch_size, self._rows_per_epoch)
        rows, self._rows_in_epoch = done - self._rows_in_epoch, done
        if self._first is None:
            self._first = (rows, seconds)
        else:
            self._rows += rows
            self._seconds += seconds
        if self._progress is not None:
            loss = float((logs or {}).get("label-crossentropy", float("nan")))
            self._progress(
                "train",
                self._epoch * self._rows_per_epoch + done,
                self._epochs * self._rows_per_epoch,
                {"epoch": self._epoch + 1, "loss": loss},
            )


class EpochEnd(tf.keras.callbacks.Callback):
    """Notes each epoch's metrics, saves a checkpoint, and stops when the eval split no longer gains.

    Keras' own `EarlyStopping` keeps the best weights in memory, a second copy of every table, and forgets them when
    the process ends; here they are one of the checkpoints.
    """

    def __init__(
        self,
        directory: CheckpointDirectory,
        checkpoint: tf.train.Checkpoint,
        state: TrainingState,
        monitor: str | None,
        patience: int,
    ) -> None:
        super().__init__()
        self._directory = directory
        self._checkpoint = checkpoint
        self.state = state
        self._monitor = monitor
        self._patience = patience
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        train, evaluation = {}, {}
        for name, value in (logs or {}).items():
            if name in METRICS:
                train[name] = float(value)
            elif name.removeprefix("val_") in METRICS:
                evaluation[name.removeprefix("val_")] = float(value)
        seconds = time.perf_counter() - self._began
        self.state.epochs.append(EpochRecord(epoch=epoch + 1, seconds=seconds, train=train, eval=evaluation))
        if self._monitor is None:
            self.state.best_epoch = epoch + 1
        elif improves(self._monitor, evaluation[self._monitor], self.state.best_value):
            self.state.best_epoch, self.state.best_value = epoch + 1, evaluation[self._monitor]
        elif self.state.epochs_without_improvement >= self._patience:
            self.state.stopped_early = self.model.stop_training = True
        self._directory.save(self._checkpoint, self.state)
