"""From the last checkpoint to the last epoch."""

from __future__ import annotations

import logging
from typing import Any

import tensorflow as tf

from pipeline.manifest import Progress, join
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.reader import Shuffle, num_steps, read_batches
from trainer.devices.cluster import num_workers, worker_index
from trainer.devices.strategy import any_worker, is_tpu, wants_static_shape
from trainer.loop.advice import AdviseOnLoss
from trainer.loop.callbacks import Checkpointing, Speedometer, StopAtNonFiniteLoss, metric_values, place
from trainer.loop.checkpoint import CheckpointDirectory, TrainingState, checkpoint_name
from trainer.loop.evaluate import evaluation_batches
from trainer.loop.interruption import PendingSignals
from trainer.model.averaging import AverageWeights, WeightAverage
from trainer.model.dot_bias import DotBias
from trainer.model.oov import OovEmbeddings

TENSORBOARD_DIRECTORY = "tensorboard"
_log = logging.getLogger("trainer.train")


def fit(
    model: DotBias,
    data: Dataset,
    config: TrainerConfig,
    strategy: tf.distribute.Strategy,
    directory: CheckpointDirectory,
    state: TrainingState,
    progress: Progress | None,
    *,
    early_stopping: bool = True,
) -> float | None:
    """Trains from `state` to the end, which `state` then holds, and leaves the best weights in the model.

    The weights are averages over epochs, see `averaging`. Returns rows per second, None if there was nothing left to
    train.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM, after a checkpoint.
        DotbiasError: the loss is not finite, or a checkpoint cannot be written or read.
    """
    assert config.batch_size is not None
    average = make_average(model, config, strategy)
    oov = OovEmbeddings(model, data, config)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer, average=average.saved)
    rows = data.split("train").rows
    steps = num_steps(data.split("train").shards, config.batch_size, num_workers())
    if state.epochs or state.steps_in_epoch:
        _log.info("Going on %s, of at most %d epochs.", place(state, steps), config.epochs)
        # Where no epoch is left to train, nobody asks for the rest, such as the optimizer's step.
        directory.restore(checkpoint, state.name).assert_existing_objects_matched().expect_partial()

    speedometer = Speedometer(state, rows, config.epochs, config.batch_size, progress)
    finite = StopAtNonFiniteLoss(directory, state, steps)
    with PendingSignals() as signals:
        checkpointing = Checkpointing(
            directory,
            checkpoint,
            state,
            config.checkpoint,
            monitor=monitored_metric(data, config) if early_stopping else None,
            patience=config.early_stopping.patience,
            steps_per_epoch=steps,
            signals=signals,
            any_worker=any_worker(strategy),
            check_weights=finite.check_weights,
            metric_values=metric_values(model) if state.steps_in_epoch else None,
        )
        callbacks = [
            speedometer,
            finite,
            AverageWeights(average, before_eval=lambda: oov.fit("eval")),
            AdviseOnLoss(state.epochs, data, config),
            *_tensorboard(directory.model_dir, strategy),
            checkpointing,
        ]
        # An epoch that was interrupted has fewer steps left, so it is a `fit` of its own.
        if state.steps_in_epoch:
            _fit_epochs(model, data, config, strategy, callbacks, state, steps, last_epoch=len(state.epochs) + 1)
        if len(state.epochs) < config.epochs and not state.stopped_early:
            _fit_epochs(model, data, config, strategy, callbacks, state, steps, last_epoch=config.epochs)
    # From the file even where the last epoch was the best: what is exported is what was saved.
    best = tf.train.Checkpoint(model=model, average=average.saved)
    directory.restore(best, checkpoint_name(state.best_epoch)).expect_partial()
    average.swap()
    oov.fit()
    return speedometer.rows_per_second


def _fit_epochs(
    model: DotBias,
    data: Dataset,
    config: TrainerConfig,
    strategy: tf.distribute.Strategy,
    callbacks: list[Any],
    state: TrainingState,
    steps: int,
    last_epoch: int,
) -> None:
    """Trains from `state` to the end of the epoch `last_epoch` (from 1); `steps` are those of a whole epoch."""
    first_epoch, batch_size = len(state.epochs), config.batch_size
    assert batch_size is not None
    shuffle = Shuffle(config.seed, last_epoch, first_epoch, state.steps_in_epoch)
    batches = strategy.distribute_datasets_from_function(
        lambda context: read_batches(
            data, "train", batch_size, shuffle=shuffle, context=context, static_shape=wants_static_shape(strategy)
        )
    )
    validation, validation_steps = (
        evaluation_batches(strategy, data, "eval") if data.split("eval").rows else (None, None)
    )
    model.fit(
        batches,
        steps_per_epoch=steps - state.steps_in_epoch,
        initial_epoch=first_epoch,
        epochs=last_epoch,
        validation_data=validation,
        validation_steps=validation_steps,
        callbacks=callbacks,
        verbose=0,
    )


def _tensorboard(model_dir: str, strategy: tf.distribute.Strategy) -> list[tf.keras.callbacks.Callback]:
    if worker_index():
        return []
    path = join(model_dir, TENSORBOARD_DIRECTORY)
    return [tf.keras.callbacks.TensorBoard(path, write_graph=False, profile_batch=0)]


def make_average(model: DotBias, config: TrainerConfig, strategy: tf.distribute.Strategy) -> WeightAverage:
    """Of all weights; it keeps nothing on a TPU, whose tables cannot be exchanged between the steps."""
    decay = config.weight_averaging
    if decay and is_tpu(strategy):
        _log.warning("`trainer.weight_averaging` does nothing on a TPU.")
        decay = 0.0
    with strategy.scope():
        return WeightAverage([*model.tables.values(), model.bias], decay)


def monitored_metric(data: Dataset, config: TrainerConfig) -> str | None:
    """The eval metric that early stopping goes by; None: train all epochs."""
    split = data.split("eval")
    if not split.rows:
        _log.warning("The eval split has no rows: training all %d epochs, without early stopping.", config.epochs)
        return None
    if config.early_stopping.monitor == "auc" and split.positive_rows in (0, split.rows):
        _log.warning("The eval split has labels of one class only, so no AUC: stopping by label-crossentropy.")
        return "label-crossentropy"
    return config.early_stopping.monitor
