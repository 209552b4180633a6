"""Defines the callbacks of `model.fit`: progress, checkpoints, early stopping.

An epoch of Keras is a period here, see `data.periods`.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf
from tensorboard.plugins.scalar.summary_v2 import scalar_pb

from pipeline.manifest import DotbiasError, Progress, join
from trainer.config import CheckpointConfig
from trainer.data.dataset import Dataset
from trainer.data.periods import Periods
from trainer.loop.checkpoint import CheckpointDirectory, PeriodRecord, Saved, TrainingState, improves
from trainer.loop.evaluate import METRICS, evaluate, training_loss
from trainer.loop.interruption import SIGNALS, Interrupted, PendingSignals
from trainer.model.blocks import row_blocks
from trainer.model.dot_bias import DotBias

# Of the metrics of the eval split, in what Keras hands to a callback.
_EVAL_PREFIX = "val_"


class Speedometer(tf.keras.callbacks.Callback):
    """Reports the rows done, and measures rows per second without evaluation, compilation and the end of a period.

    `state` is read at the start of a period, to know at which step a resumed one goes on.
    """

    def __init__(self, state: TrainingState, periods: Periods, progress: Progress | None) -> None:
        super().__init__()
        self._state = state
        self._periods = periods
        self._progress = progress
        self._period = 0
        self._began = 0.0
        self._first_step = 0
        self._done = 0
        # (rows, seconds) of the first call, which compiles, and of all others.
        self._first: tuple[int, float] | None = None
        self._rows, self._seconds = 0, 0.0

    @property
    def rows_per_second(self) -> float | None:
        """Excludes compilation, unless the whole training was one call; None if nothing was trained."""
        rows, seconds = (self._rows, self._seconds) if self._rows else self._first or (0, 0.0)
        return rows / seconds if seconds else None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._period = epoch
        self._first_step = self._state.steps_in_period
        self._done = self._periods.rows_after(epoch, self._first_step)
        if self._first is None:
            # A display measures the pace from the row at which this process begins.
            self._report({})
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """`batch` is the last of the `steps_per_execution` that ran in this call."""
        now = time.perf_counter()
        # Time between the calls counts too: other callbacks, and waiting for rows.
        seconds, self._began = now - self._began, now
        done = self._periods.rows_after(self._period, self._first_step + batch + 1)
        rows, self._done = done - self._done, done
        if self._first is None:
            self._first = (rows, seconds)
        else:
            self._rows += rows
            self._seconds += seconds
        self._report({"loss": training_loss(logs)})

    def _report(self, metrics: Mapping[str, float]) -> None:
        if self._progress is not None:
            total = self._periods.rows_after(self._periods.count)
            self._progress("train", self._done, total, {self._periods.unit: self._period + 1, **metrics})


class StopAtNonFiniteLoss(tf.keras.callbacks.Callback):
    """Ends training before a loss that is not finite gets into a checkpoint."""

    def __init__(self, directory: CheckpointDirectory, state: TrainingState, periods: Periods) -> None:
        super().__init__()
        self._directory = directory
        self._state = state
        self._periods = periods
        self._first_step = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._first_step = self._state.steps_in_period

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Check the cross-entropy in `logs`, the mean of the period so far, which shows a fault of any earlier step."""
        loss = training_loss(logs)
        if not math.isfinite(loss):
            self._stop(f"The loss is {loss}", self._first_step + batch + 1)

    def check_weights(self, steps_in_period: int, model: tf.keras.Model | None = None) -> None:
        """Check the weights: a gradient that overflows spoils them one step before it spoils the loss.

        `model` has the weights where they cannot be read during training, on a TPU.
        """
        for variable in (model or self.model).trainable_variables:
            for block in row_blocks(variable):
                if not bool(tf.reduce_all(tf.math.is_finite(block.read()))):
                    self._stop("Weights are not finite", steps_in_period)

    def _stop(self, what: str, steps_in_period: int) -> None:
        period = len(self._state.periods)
        last = self._directory.last_path()
        raise DotbiasError(
            f"{what} at step {steps_in_period:,} of {self._periods.steps_of(period):,} of {self._periods.unit} "
            f"{period + 1}, or in one of the "
            "`trainer.steps_per_execution` - 1 steps before it. The usual reason is too large a "
            "`trainer.optimizer.learning_rate`: try a tenth of it. "
            + (f"The last good checkpoint is kept: {last}." if last else "There was no checkpoint yet.")
        )


class MeasureOnHost(tf.keras.callbacks.Callback):
    """Brings the weights of a TPU to a model on the host after each period, and measures that on the eval split.

    Place it before callbacks that read eval metrics or save.

    Args:
        host: the model on the host.
        data: the dataset.
        copy: copies the weights to `host`; through a file, since tables on a TPU cannot be read.
        check_weights: called with the steps in the period and `host`; raises if its weights are not finite.
        state: the progress of training.
        callbacks: of the evaluation, which would be callbacks of `fit` on other devices.
    """

    def __init__(
        self,
        host: DotBias,
        data: Dataset,
        copy: Callable[[], None],
        check_weights: Callable[[int, DotBias], None],
        state: TrainingState,
        callbacks: Sequence[tf.keras.callbacks.Callback],
    ) -> None:
        super().__init__()
        self._host = host
        self._data = data
        self._copy = copy
        self._check_weights = check_weights
        self._state = state
        self._callbacks = callbacks

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        # Keras calls this in the scope of the TPU's strategy, which belongs to the thread.
        with ThreadPoolExecutor(1) as outside:
            outside.submit(self._measure, epoch, logs).result()

    def _measure(self, epoch: int, logs: dict[str, float]) -> None:
        self._copy()
        self._check_weights(self._state.steps_in_period, self._host)
        for callback in self._callbacks:
            callback.on_epoch_begin(epoch)
        measured = evaluate(self._host, self._data, "eval", callbacks=self._callbacks)
        logs.update({f"{_EVAL_PREFIX}{name}": value for name, value in measured.items()})
        for callback in self._callbacks:
            callback.on_epoch_end(epoch, logs)


class WriteEpochs(tf.keras.callbacks.Callback):
    """Writes the metrics of a period to `train/`, and those of the eval split to `validation/`, as Keras names them.

    Keras' own callback writes each number by several operations, which takes a tenth of the time of a short period.

    Args:
        directory: where TensorBoard looks.
    """

    def __init__(self, directory: str) -> None:
        super().__init__()
        self._directory = directory
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        logs = logs or {}
        self._write("train", epoch, {name: logs[name] for name in logs if not name.startswith(_EVAL_PREFIX)})
        evaluated = {name.removeprefix(_EVAL_PREFIX): logs[name] for name in logs if name.startswith(_EVAL_PREFIX)}
        if evaluated:
            self._write("validation", epoch, evaluated)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _write(self, name: str, epoch: int, metrics: Mapping[str, float]) -> None:
        if name not in self._writers:
            self._writers[name] = tf.summary.create_file_writer(join(self._directory, name))
        # Protocol buffers put together are one with the values of all.
        summary = b"".join(scalar_pb(f"epoch_{metric}", value).SerializeToString() for metric, value in metrics.items())
        with self._writers[name].as_default():
            tf.summary.experimental.write_raw_pb(summary, step=epoch)


class Checkpointing(tf.keras.callbacks.Callback):
    """Saves checkpoints by the clock, by steps, on a signal, and after each period; stops when eval no longer gains.

    Keras' own `EarlyStopping` keeps the best weights in memory, a second copy of every table, and loses them when the
    process ends; here they are one of the checkpoints.

    Args:
        directory: where to save.
        checkpoint: what to save.
        state: the progress of training; kept up to date.
        config: `trainer.checkpoint`.
        monitor: the eval metric to stop by, None: never.
        patience: periods without gain.
        periods: of the training.
        signals: the signals received so far.
        any_worker: see `strategy.any_worker`.
        check_weights: called with the steps in the period before each checkpoint; raises if weights are not finite.
        metric_values: values of the metrics' variables, if training goes on in the middle of a period; else None.
        clock: seconds.
    """

    def __init__(
        self,
        directory: CheckpointDirectory,
        checkpoint: Saved,
        state: TrainingState,
        config: CheckpointConfig,
        *,
        monitor: str | None,
        patience: int,
        periods: Periods,
        signals: PendingSignals,
        any_worker: Callable[[Sequence[bool]], list[bool]] = list,
        check_weights: Callable[[int], None] = lambda steps_in_period: None,
        metric_values: Sequence[Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._directory = directory
        self._checkpoint = checkpoint
        self.state = state
        self._config = config
        self._monitor = monitor
        self._patience = patience
        self._periods = periods
        self._signals = signals
        self._any_worker = any_worker
        self._check_weights = check_weights
        self._metric_values = metric_values
        self._clock = clock
        self._began = self._saved = clock()
        self._first_step = self._saved_step = 0
        self._seconds_before = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = self._saved = self._clock()
        self._first_step = self._saved_step = self.state.steps_in_period
        self._seconds_before = self.state.seconds_in_period
        if self._metric_values is not None:
            # Keras has just reset the metrics; the interrupted period goes on with its own.
            assign_metrics(self.model, self._metric_values)
            self._metric_values = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """`batch` is the last of the `steps_per_execution` that ran in this call."""
        steps = self._first_step + batch + 1
        if steps >= self._periods.steps_of(len(self.state.periods)):
            # `on_epoch_end` follows, and saves.
            self._state_at(steps)
            return
        due = self._clock() - self._saved >= 60 * self._config.every_minutes
        if self._config.every_steps is not None:
            due |= steps - self._saved_step >= self._config.every_steps
        due, *received = self._any_worker([due, *(number in self._signals.received for number in SIGNALS)])
        if due or any(received):
            self._state_at(steps)
            self._save()
        self._stop_if(received)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        if self.state.steps_in_period != self._periods.steps_of(epoch):
            # Keras ends an epoch without an error when the data end.
            raise tf.errors.OutOfRangeError(None, None, f"The data ended after {self.state.steps_in_period} steps.")
        train, evaluation = {}, {}
        for name, value in (logs or {}).items():
            if name in METRICS:
                train[name] = float(value)
            elif name.removeprefix(_EVAL_PREFIX) in METRICS:
                evaluation[name.removeprefix(_EVAL_PREFIX)] = float(value)
        seconds = self._seconds_before + self._clock() - self._began
        done = epoch + 1
        epochs, rows = self._periods.epochs_after(done), self._periods.rows_after(done)
        self.state.periods.append(PeriodRecord(epoch=epochs, rows=rows, seconds=seconds, train=train, eval=evaluation))
        self.state.steps_in_period, self.state.seconds_in_period = 0, 0.0
        if self._monitor is None:
            self.state.best_period = done
        elif improves(self._monitor, evaluation[self._monitor], self.state.best_value):
            self.state.best_period, self.state.best_value = done, evaluation[self._monitor]
        elif self.state.periods_without_improvement >= self._patience:
            self.state.stopped_early = self.model.stop_training = True
        self._save()
        self._stop_if(self._any_worker([number in self._signals.received for number in SIGNALS]))

    def _state_at(self, steps: int) -> None:
        self.state.steps_in_period = steps
        self.state.seconds_in_period = self._seconds_before + self._clock() - self._began

    def _save(self) -> None:
        self._check_weights(self.state.steps_in_period)
        self._directory.save(self._checkpoint, self.state)
        # Other workers may read what the chief writes, so all wait until it is written.
        self._any_worker([False])
        self._saved, self._saved_step = self._clock(), self.state.steps_in_period

    def _stop_if(self, received: Sequence[bool]) -> None:
        for number, is_set in zip(SIGNALS, received, strict=True):
            if is_set:
                name = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}[number]
                raise Interrupted(number, f"{name}; the same command goes on {place(self.state, self._periods)}")


def place(state: TrainingState, periods: Periods) -> str:
    """Say where a training with this state goes on."""
    done, unit = len(state.periods), periods.unit
    if state.steps_in_period:
        return f"after step {state.steps_in_period:,} of {periods.steps_of(done):,} of {unit} {done + 1}"
    return f"after {unit} {done}"


def metric_values(model: tf.keras.Model) -> list[Any]:
    """Return the values of the variables of the model's metrics, in order."""
    return [variable.numpy() for metric in model.metrics for variable in metric.variables]


def assign_metrics(model: tf.keras.Model, values: Sequence[Any]) -> None:
    """Assign what `metric_values` returned."""
    variables = [variable for metric in model.metrics for variable in metric.variables]
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
