"""Trains a model from its last checkpoint to its last epoch."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import tensorflow as tf

from pipeline.manifest import Progress, join
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.reader import Shuffle, num_steps, read_batches
from trainer.devices.cluster import num_workers, worker_index
from trainer.devices.strategy import any_worker, wants_static_shape
from trainer.devices.tpu import input_options, is_tpu, moves_tables_itself
from trainer.loop.advice import AdviseOnLoss
from trainer.loop.callbacks import (
    Checkpointing,
    MeasureOnHost,
    Speedometer,
    StopAtNonFiniteLoss,
    WriteEpochs,
    metric_values,
    place,
)
from trainer.loop.checkpoint import CheckpointDirectory, Saved, TrainingState, WarmStartRecord, checkpoint_name
from trainer.loop.defaults import objective_of
from trainer.loop.evaluate import evaluate, evaluation_batches
from trainer.loop.interruption import PendingSignals
from trainer.loop.ranking import NDCG, MeasureRanking, RankingTask
from trainer.loop.saved_state import make_slots, state_variables
from trainer.loop.warm_start import Former
from trainer.model.averaging import AverageWeights, WeightAverage
from trainer.model.dot_bias import DotBias
from trainer.model.from_tpu import copy_weights
from trainer.model.oov import OovEmbeddings
from trainer.model.variables import Variables

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
    former: Former | None = None,
    early_stopping: bool = True,
    host: DotBias | None = None,
) -> float | None:
    """Train from `state` to the last epoch, update `state`, and leave the best weights in the model.

    The weights are averages over epochs, see `averaging`. The optimizer's slots are those of the best epoch too. With
    `former`, a training that has not begun starts from its weights: they are epoch 0, and the first average. Returns
    rows per second, None if there was nothing left to train.

    With `host`, a model on the CPU, `model` is on a TPU. `host` gets its weights after each epoch and is averaged and
    measured in its place; the best weights stay in their checkpoint, see `best_on_host`.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM, after a checkpoint.
        DotbiasError: the loss is not finite, or a checkpoint cannot be written or read.
    """
    assert config.batch_size is not None
    if not moves_tables_itself(strategy):
        with strategy.scope():
            make_slots(model)
    measured = model if host is None else host
    average = make_average(measured, config, measured.distribute_strategy)
    finds_items = objective_of(config, data) == "softmax"
    checkpoint = _saved(model, average, strategy)
    rows = data.split("train").rows
    steps = num_steps(data.split("train").shards, config.batch_size, num_workers())
    task = ranking_task(data, config)
    monitor = monitored_metric(data, config, can_be_ranked=task is not None) if early_stopping else None
    if state.is_saved:
        _log.info("Going on %s, of at most %d epochs.", place(state, steps), config.epochs)
        directory.restore(checkpoint, state.name)
    elif former is not None:
        _start_from(former, model, data, state, average, monitor, task)
        directory.save(checkpoint, state)
        # Other workers may read what the chief writes, so all wait until it is written.
        any_worker(strategy)([False])

    speedometer = Speedometer(state, rows, config.epochs, config.batch_size, progress)
    finite = StopAtNonFiniteLoss(directory, state, steps)

    def on_host(host: DotBias, callbacks: list[tf.keras.callbacks.Callback]) -> MeasureOnHost:
        def copy() -> None:
            directory.pass_through(checkpoint, lambda path: copy_weights(path, host))

        return MeasureOnHost(host, data, copy, finite.check_weights, state, callbacks)

    with PendingSignals() as signals:
        checkpointing = Checkpointing(
            directory,
            checkpoint,
            state,
            config.checkpoint,
            monitor=monitor,
            patience=config.early_stopping.patience,
            steps_per_epoch=steps,
            signals=signals,
            any_worker=any_worker(strategy),
            check_weights=finite.check_weights,
            metric_values=metric_values(model) if state.steps_in_epoch else None,
        )
        ranking = [] if task is None else [MeasureRanking(task)]
        averaging = average_weights(measured, data, config, average)
        callbacks = [
            *(ranking if host is None else [on_host(host, [*ranking, averaging])]),
            speedometer,
            finite,
            *([averaging] if host is None else []),
            *([] if finds_items else [AdviseOnLoss(state.epochs, data, config)]),
            *_tensorboard(directory.model_dir, strategy),
            checkpointing,
        ]
        # An epoch that was interrupted has fewer steps left, so it is a `fit` of its own.
        if state.steps_in_epoch:
            fit_epochs(model, data, config, strategy, callbacks, state, last_epoch=len(state.epochs) + 1)
        if len(state.epochs) < config.epochs and not state.stopped_early:
            fit_epochs(model, data, config, strategy, callbacks, state, last_epoch=config.epochs)
    if host is not None:
        return speedometer.rows_per_second
    # Restored even if the last epoch was the best, so that the export is exactly the saved checkpoint.
    directory.restore(checkpoint, checkpoint_name(state.best_epoch))
    _leave_best(model, data, config, state, average)
    return speedometer.rows_per_second


def _saved(model: DotBias, average: WeightAverage, strategy: tf.distribute.Strategy) -> Saved:
    """Return what a checkpoint of a training holds: weights, slots, averages, and metrics, for one within an epoch."""
    if moves_tables_itself(strategy):
        return tf.train.Checkpoint(model=model, optimizer=model.optimizer, average=average.saved)
    variables = state_variables(model)
    variables |= {f"average/{number}": variable for number, variable in enumerate(average.saved.averages)}
    variables["average/epochs"] = average.saved.epochs
    for metric in model.metrics:
        variables |= {f"metrics/{metric.name}/{n}": variable for n, variable in enumerate(metric.variables)}
    return Variables(variables, strategy)


def best_on_host(
    model: DotBias, data: Dataset, config: TrainerConfig, directory: CheckpointDirectory, state: TrainingState
) -> None:
    """Leave the best weights of a training on a TPU in a model on the host, as `fit` does on other devices."""
    average = make_average(model, config, model.distribute_strategy)
    name = checkpoint_name(state.best_epoch)
    directory.restore(tf.train.Checkpoint(average=average.saved), name)
    copy_weights(join(directory.path, name), model)
    _leave_best(model, data, config, state, average)


def _leave_best(
    model: DotBias, data: Dataset, config: TrainerConfig, state: TrainingState, average: WeightAverage
) -> None:
    average.swap()
    # The weights of epoch 0 give the predictions of the former model, for new tokens too.
    if state.best_epoch and objective_of(config, data) != "softmax":
        OovEmbeddings(model, data, config).fit()


def _start_from(
    former: Former,
    model: DotBias,
    data: Dataset,
    state: TrainingState,
    average: WeightAverage,
    monitor: str | None,
    task: RankingTask | None,
) -> None:
    """Carry the former weights over, measure them on the eval split, and note both in `state`."""
    carried = former.carry_over(model, data)
    average.update()
    state.warm_start = WarmStartRecord(features=carried, eval=evaluate(model, data, "eval", task))
    if monitor is not None:
        state.best_value = state.warm_start.eval[monitor]
    for name, counts in carried.items():
        _log.info("Warm start, %s: %d kept, %d new, %d gone.", name, counts.kept, counts.new, counts.gone)


def fit_epochs(
    model: DotBias,
    data: Dataset,
    config: TrainerConfig,
    strategy: tf.distribute.Strategy,
    callbacks: list[Any],
    state: TrainingState,
    last_epoch: int,
) -> None:
    """Train from `state` to the end of the epoch `last_epoch` (from 1), with validation if there are eval rows."""
    first_epoch, batch_size = len(state.epochs), config.batch_size
    assert batch_size is not None
    steps = num_steps(data.split("train").shards, batch_size, num_workers())
    shuffle = Shuffle(config.seed, last_epoch, first_epoch, state.steps_in_epoch)
    batches = strategy.distribute_datasets_from_function(
        lambda context: read_batches(
            data,
            "train",
            batch_size,
            shuffle=shuffle,
            context=context,
            static_shape=wants_static_shape(strategy),
            append=model.append,
        ),
        input_options(strategy),
    )
    validation, validation_steps = None, None
    # The batches of an evaluation have another shape, and a TPU takes one shape only.
    if data.split("eval").rows and not is_tpu(strategy):
        validation, validation_steps = evaluation_batches(model, data, "eval")
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
    return [WriteEpochs(join(model_dir, TENSORBOARD_DIRECTORY))]


def make_average(model: DotBias, config: TrainerConfig, strategy: tf.distribute.Strategy) -> WeightAverage:
    """Make an average of all weights."""
    with strategy.scope():
        return WeightAverage([*model.tables.values(), model.bias], config.weight_averaging)


def average_weights(model: DotBias, data: Dataset, config: TrainerConfig, average: WeightAverage) -> AverageWeights:
    """Make the callback that averages; it also fits OOV rows before eval, unless `softmax` sets them in `fold`."""
    if objective_of(config, data) == "softmax":
        return AverageWeights(average)
    return AverageWeights(average, before_eval=partial(OovEmbeddings(model, data, config).fit, "eval"))


def ranking_task(data: Dataset, config: TrainerConfig) -> RankingTask | None:
    """Draw the users of the eval split to rank items for; None if nothing asks for it, or there are none."""
    if config.early_stopping.monitor != "ndcg" or not data.split("eval").rows:
        return None
    return RankingTask.draw(data, config.seed)


def monitored_metric(data: Dataset, config: TrainerConfig, *, can_be_ranked: bool) -> str | None:
    """Return the eval metric that early stopping goes by; None: train all epochs.

    `can_be_ranked`: whether `ranking_task` has found users.
    """
    split = data.split("eval")
    if not split.rows:
        _log.warning("The eval split has no rows: training all %d epochs, without early stopping.", config.epochs)
        return None
    monitor = config.early_stopping.monitor
    if monitor == "ndcg":
        if can_be_ranked:
            return NDCG
        loss = "softmax-crossentropy" if objective_of(config, data) == "softmax" else "label-crossentropy"
        _log.warning("Every eval user's items are unknown or in their train rows, so no NDCG: stopping by %s.", loss)
        return loss
    if monitor == "auc" and split.positive_rows in (0, split.rows):
        _log.warning("The eval split has labels of one class only, so no AUC: stopping by label-crossentropy.")
        return "label-crossentropy"
    return monitor
