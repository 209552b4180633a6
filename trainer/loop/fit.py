"""Trains a model from its last checkpoint to its last period."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import tensorflow as tf

from pipeline.manifest import Progress, join
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.periods import Periods, Stretch
from trainer.data.reader import Shuffle, read_batches
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
    most_periods: int | None = None,
    host: DotBias | None = None,
) -> float | None:
    """Train from `state` to the last period, update `state`, and leave the best weights in the model.

    The weights are averages over periods, see `averaging`. The optimizer's slots are those of the best period too. With
    `former`, a training that has not begun starts from its weights: they are period 0, and the first average. With
    `most_periods`, so many are trained and the last is the best. Returns rows per second, None if there was nothing
    left to train.

    With `host`, a model on the CPU, `model` is on a TPU. `host` gets its weights after each period and is averaged and
    measured in its place; the best weights stay in their checkpoint, see `best_on_host`.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM, after a checkpoint.
        DotbiasError: the loss is not finite, or a checkpoint cannot be written or read.
    """
    if not moves_tables_itself(strategy):
        with strategy.scope():
            make_slots(model)
    measured = model if host is None else host
    average = make_average(measured, config, measured.distribute_strategy)
    finds_items = objective_of(config, data) == "softmax"
    checkpoint = _saved(model, average, strategy)
    periods = Periods.of(data, config, num_workers(), most_periods)
    task = ranking_task(data, config)
    stops_early = most_periods is None
    monitor = monitored_metric(data, config, can_be_ranked=task is not None) if stops_early else None
    if state.is_saved:
        _log.info("Going on %s, of at most %d %ss.", place(state, periods), periods.count, periods.unit)
        directory.restore(checkpoint, state.name)
    elif former is not None:
        _start_from(former, model, data, state, average, monitor, task)
        directory.save(checkpoint, state)
        # Other workers may read what the chief writes, so all wait until it is written.
        any_worker(strategy)([False])

    speedometer = Speedometer(state, periods, progress)
    finite = StopAtNonFiniteLoss(directory, state, periods)

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
            periods=periods,
            signals=signals,
            any_worker=any_worker(strategy),
            check_weights=finite.check_weights,
            metric_values=metric_values(model) if state.steps_in_period else None,
        )
        ranking = [] if task is None else [MeasureRanking(task)]
        averaging = average_weights(measured, data, config, average)
        callbacks = [
            *(ranking if host is None else [on_host(host, [*ranking, averaging])]),
            speedometer,
            finite,
            *([averaging] if host is None else []),
            *([] if finds_items else [AdviseOnLoss(state.periods, data, config, periods.unit)]),
            *_tensorboard(directory.model_dir, strategy),
            checkpointing,
        ]
        if not state.stopped_early:
            fit_periods(model, data, config, strategy, callbacks, periods, len(state.periods), state.steps_in_period)
    if host is not None:
        return speedometer.rows_per_second
    # Restored even if the last period was the best, so that the export is exactly the saved checkpoint.
    directory.restore(checkpoint, checkpoint_name(state.best_period))
    _leave_best(model, data, config, state, average)
    return speedometer.rows_per_second


def _saved(model: DotBias, average: WeightAverage, strategy: tf.distribute.Strategy) -> Saved:
    """Return what a checkpoint of a training holds: weights, slots, averages, and metrics, for one within a period."""
    if moves_tables_itself(strategy):
        return tf.train.Checkpoint(model=model, optimizer=model.optimizer, average=average.saved)
    variables = state_variables(model)
    variables |= {f"average/{number}": variable for number, variable in enumerate(average.saved.averages)}
    variables["average/periods"] = average.saved.periods
    for metric in model.metrics:
        variables |= {f"metrics/{metric.name}/{n}": variable for n, variable in enumerate(metric.variables)}
    return Variables(variables, strategy)


def best_on_host(
    model: DotBias, data: Dataset, config: TrainerConfig, directory: CheckpointDirectory, state: TrainingState
) -> None:
    """Leave the best weights of a training on a TPU in a model on the host, as `fit` does on other devices."""
    average = make_average(model, config, model.distribute_strategy)
    name = checkpoint_name(state.best_period)
    directory.restore(tf.train.Checkpoint(average=average.saved), name)
    copy_weights(join(directory.path, name), model)
    _leave_best(model, data, config, state, average)


def _leave_best(
    model: DotBias, data: Dataset, config: TrainerConfig, state: TrainingState, average: WeightAverage
) -> None:
    average.swap()
    # The weights of period 0 give the predictions of the former model, for new tokens too.
    if state.best_period and objective_of(config, data) != "softmax":
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


def fit_periods(
    model: DotBias,
    data: Dataset,
    config: TrainerConfig,
    strategy: tf.distribute.Strategy,
    callbacks: list[Any],
    periods: Periods,
    period: int = 0,
    steps: int = 0,
) -> None:
    """Train from a step of a period to the last period, or until a callback stops; validate if there are eval rows."""
    # All periods of a `fit` have as many steps: one that was interrupted has fewer left, and the last can have fewer.
    for stretch in periods.stretches(period, steps):
        _fit_stretch(model, data, config, strategy, callbacks, stretch)
        if model.stop_training:
            break


def _fit_stretch(
    model: DotBias,
    data: Dataset,
    config: TrainerConfig,
    strategy: tf.distribute.Strategy,
    callbacks: list[Any],
    stretch: Stretch,
) -> None:
    batch_size = config.batch_size
    assert batch_size is not None
    shuffle = Shuffle(config.seed, stretch.epochs, stretch.first_epoch, stretch.skip_steps)
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
        steps_per_epoch=stretch.steps,
        initial_epoch=stretch.first,
        epochs=stretch.end,
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
