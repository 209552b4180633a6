"""Trains a model on the shards of a dataset, and exports it.

```
<model_dir>/
  checkpoints/          after each period and every few minutes, until training is finished, see `loop.checkpoint`
  tensorboard/          metrics of each period, an epoch unless `trainer.evaluate_every_rows` says otherwise
  export_before_refit/  the SavedModel of the best period's weights, which have not been trained on eval rows
  refit/                checkpoints and metrics of the training on train and eval rows, see `loop.refit`
  export/               the SavedModel, of the refit, or else of the best period's weights
  state/                weights and optimizer slots of the exported model before `output.rescaling`, for a warm start,
                        see `loop.saved_state`
  cache-0/              decoded shards while training runs, with `trainer.cache: disk`
  metrics.json          written last: its presence means that the training is finished
```
"""

from __future__ import annotations

import gc
import logging
from typing import Any

import tensorflow as tf

from pipeline.manifest import DotbiasError, Progress, fingerprint, join, tool_versions
from trainer.build import compiled_model
from trainer.config import CHECKPOINT_DIRECTORY, TrainerConfig
from trainer.data.cache import close_cache, open_cache
from trainer.data.dataset import Dataset
from trainer.data.faults import explanation
from trainer.devices.cluster import num_workers, worker_index
from trainer.devices.strategy import any_worker, make_strategy, wants_tpu
from trainer.finished import delete_checkpoints, fingerprint_of, finished_result
from trainer.loop.checkpoint import CheckpointDirectory, TrainingState
from trainer.loop.defaults import objective_of, with_automatic_values
from trainer.loop.evaluate import evaluate
from trainer.loop.fit import TENSORBOARD_DIRECTORY, fit
from trainer.loop.prepare import prepare
from trainer.loop.ranking import RANKING_METRICS
from trainer.loop.refit import REFIT_DIRECTORY, refit_config, with_eval_rows
from trainer.loop.saved_state import STATE_DIRECTORY, SavedState, save_state, start_anew
from trainer.loop.warm_start import ColdStart, Former, WarmStart
from trainer.model.dot_bias import DotBias
from trainer.output.export import export_model
from trainer.output.predictions import calibrate
from trainer.output.rescaling import Rescaling
from trainer.output.result import (
    EXPORT_BEFORE_REFIT_DIRECTORY,
    EXPORT_DIRECTORY,
    defined_metrics,
    training_fingerprint,
    write_result,
)
from trainer.tpu.fitting import fit_on_tpu

_log = logging.getLogger("trainer.train")


def train(
    dataset: str,
    model_dir: str,
    config: TrainerConfig,
    progress: Progress | None = None,
    start: WarmStart | None = None,
) -> dict[str, Any]:
    """Train, or go on training, until `model_dir` holds a finished model; return its metrics.

    If the model is finished already, nothing is done. After an interruption with the same configuration and dataset,
    training goes on from the last checkpoint, with the same result as without the interruption; files of an interrupted
    training with another configuration are deleted.

    With `start`, training begins with the weights of a former training's export, and these weights are the result if no
    period is better. If they do not fit, it begins with random values; `warm_start` in the metrics says why.

    Args:
        dataset: directory with a manifest, see `pipeline.manifest`.
        model_dir: made if it is not there.
        config: the `trainer` section.
        progress: called with ("train", rows done, rows in all, {"epoch" or "period": from 1, "loss": its mean so far}).
        start: the former training; None to begin with random values.

    Raises:
        DotbiasError: dataset, configuration and model directory do not fit together, or training failed.
        Interrupted: by Ctrl-C or SIGTERM; it can go on.
    """
    data = Dataset.open(dataset, config)
    if (result := finished_result(data, model_dir, config, start)) is not None:
        if worker_index() == 0:
            delete_checkpoints(model_dir)
        return result
    on_tpu = wants_tpu(config.strategy)
    # First of all: several workers find each other before TensorFlow does anything else. What is done after training on
    # a TPU is done on the CPU.
    strategy = make_strategy("cpu" if on_tpu else config.strategy)
    former, started = _open_former(start, data, config)
    config = with_automatic_values(config, data)
    prepare(data, config, strategy)
    identity = training_fingerprint(data, config, None if former is None else former.fingerprint)
    refitted = None
    # A training on a TPU has its own, in its own process.
    without_cache = data
    data = open_cache(data, "none" if on_tpu else config.cache, model_dir, worker_index())
    try:
        model, state, rows_per_second = _fit_model(data, config, strategy, model_dir, identity, progress, former)
        will_refit = config.refit and data.split("eval").rows > 0
        if not will_refit:
            _save_for_warm_start(model, data, config, model_dir, identity)
        rescaling = None
        if config.rescale and objective_of(config, data) == "cross_entropy":
            rescaling = Rescaling(data, "eval")
            rescaling.fit(model)
            rescaling.apply(model)
        eval_metrics = evaluate(model, data, "eval") | _ranked(state)
        model.fold(data)
        calibrated = calibrate(model, data, "eval")
        if will_refit:
            # Exported for measuring on the eval rows; the refitted model is trained on them.
            model.set_calibration(calibrated.maps)
            if worker_index() == 0:
                export_model(model, data, join(model_dir, EXPORT_BEFORE_REFIT_DIRECTORY))
            if on_tpu:
                # The process that trains leaves its weights in another model, and two need not fit into memory.
                model.release()
                del model
                gc.collect()
            model, refitted = _refit_model(
                None if on_tpu else model,
                data,
                config,
                strategy,
                model_dir,
                identity,
                state.best_period,
                progress,
                former,
            )
            _save_for_warm_start(model, data, config, model_dir, identity)
            if rescaling is not None:
                rescaling.apply(model)
            model.fold(data)
    except tf.errors.OpError as error:
        message = explanation(error, data)
        if message is None:
            raise
        raise DotbiasError(message) from error
    finally:
        close_cache(data)
    # An export of several features of items reads train rows once more.
    data = without_cache
    model.set_calibration(calibrated.maps)
    if worker_index() == 0:
        export_model(model, data, join(model_dir, EXPORT_DIRECTORY))
    model.release()
    if started is not None and state.warm_start is not None:
        started |= state.warm_start.model_dump()
    splits = data.manifest.splits
    result = {
        "fingerprint": identity,
        "config": config.model_dump(mode="json"),
        "dataset": {
            "path": dataset,
            "fingerprint": data.fingerprint,
            "rows": {name: split.rows for name, split in splits.items()},
        },
        "train": {
            "rows_per_second": rows_per_second,
            "best_epoch": state.best_epoch,
            "stopped_early": state.stopped_early,
            "epochs": [
                record.model_dump()
                | {name: defined_metrics(getattr(record, name), splits[name]) for name in ("train", "eval")}
                for record in state.periods
            ],
            "refit": refitted,
        },
        "warm_start": started,
        # The exported model may have been trained on the eval rows, so its metrics there would be too good.
        "eval_of": "the exported model" if refitted is None else "the model before the refit",
        "eval": defined_metrics(eval_metrics | calibrated.metrics, splits["eval"]),
        "rescaling": None if rescaling is None else rescaling.parts._asdict(),
        "calibration": calibrated.report,
        "versions": tool_versions(),
    }
    if worker_index() == 0:
        write_result(model_dir, result)
        delete_checkpoints(model_dir)
    return result


def _open_former(
    start: WarmStart | None, data: Dataset, config: TrainerConfig
) -> tuple[Former | None, dict[str, Any] | None]:
    """Return the training to start from, None for a cold start, and what `metrics.json` says of the start."""
    if start is None:
        return None, None
    identity = fingerprint_of(start)
    started = {"from": identity, "model_dir": start.model_dir}
    try:
        if wants_tpu(config.strategy):
            raise ColdStart("weights on a TPU cannot be assigned row by row")
        return Former.open(start, identity, data, config), started
    except ColdStart as error:
        _log.warning("Training starts from random values, not from %s: %s.", start.model_dir, error)
        return None, {**started, "cold": str(error)}


def _ranked(state: TrainingState) -> dict[str, float]:
    """Return the ranking metrics of the best period, which were measured with the weights that it saved."""
    start = {} if state.warm_start is None else state.warm_start.eval
    best = state.periods[state.best_period - 1].eval if state.best_period else start
    return {name: best[name] for name in RANKING_METRICS if name in best}


def _save_for_warm_start(model: DotBias, data: Dataset, config: TrainerConfig, model_dir: str, identity: str) -> None:
    """Save the state of a trained model, as its training left it."""
    # The slots of tables on a TPU do not come back to the host.
    if wants_tpu(config.strategy):
        return
    state = SavedState(
        fingerprint=identity,
        dataset=data.fingerprint,
        embedding_dim=config.embedding_dim,
        optimizer=config.optimizer.name,
        objective=objective_of(config, data),
        num_bins=dict(data.num_bins),
    )
    save_state(model, model_dir, state, worker_index())


def _fit_model(
    data: Dataset,
    config: TrainerConfig,
    strategy: tf.distribute.Strategy,
    model_dir: str,
    identity: str,
    progress: Progress | None,
    former: Former | None,
    *,
    model: DotBias | None = None,
    most_periods: int | None = None,
) -> tuple[DotBias, TrainingState, float | None]:
    """Train a model, None: a new one, with checkpoints in `model_dir`; return it, the final state, rows per second."""
    whole_epochs = config.evaluate_every_rows is None
    directory = CheckpointDirectory(
        model_dir, config.checkpoint.keep, worker_index(), num_workers(), whole_epochs=whole_epochs
    )
    state = _begin(directory, identity, strategy)
    if wants_tpu(config.strategy):
        return fit_on_tpu(data, config, directory, state, progress, most_periods=most_periods)
    if model is None:
        model = compiled_model(data, config, strategy)
    speed = fit(model, data, config, strategy, directory, state, progress, former=former, most_periods=most_periods)
    return model, state, speed


def _refit_model(
    model: DotBias | None,
    data: Dataset,
    config: TrainerConfig,
    strategy: tf.distribute.Strategy,
    model_dir: str,
    identity: str,
    best_period: int,
    progress: Progress | None,
    former: Former | None,
) -> tuple[DotBias, dict[str, Any]]:
    """Train on train and eval rows, from the same start; return the model and its part of `metrics.json`.

    `model` is that of the first training, whose graphs are traced already; None: a new one.
    """
    everything = with_eval_rows(data)
    if model is not None:
        start_anew(model, everything.split("train"))
    model, state, _ = _fit_model(
        everything,
        refit_config(config, data, everything),
        strategy,
        join(model_dir, REFIT_DIRECTORY),
        fingerprint({"training": identity, "refit": best_period}),
        None if progress is None else lambda _, *done: progress("refit", *done),
        former,
        model=model,
        most_periods=best_period,
    )
    split = everything.split("train")
    epochs = [{"epoch": record.epoch, "train": defined_metrics(record.train, split)} for record in state.periods]
    return model, {"rows": split.rows, "epochs": epochs}


def _begin(directory: CheckpointDirectory, identity: str, strategy: tf.distribute.Strategy) -> TrainingState:
    """Return the state of the last checkpoint of the same training, else an empty one; delete newer checkpoints."""
    last = directory.last_state()
    wait_for_workers = any_worker(strategy)
    # No worker deletes what another one still has to look at.
    wait_for_workers([False])
    state = last if last is not None and last.fingerprint == identity else TrainingState(fingerprint=identity)
    if worker_index() == 0:
        if state is last:
            directory.delete_after(state)
        else:
            _delete_leftovers(directory.model_dir)
        tf.io.gfile.makedirs(directory.path)
    wait_for_workers([False])
    # Only at the end of an epoch can the number of workers have changed.
    state.num_workers = num_workers()
    return state


def _delete_leftovers(model_dir: str) -> None:
    """Delete the files that a training writes, and nothing else."""
    exports = [name + end for name in (EXPORT_BEFORE_REFIT_DIRECTORY, EXPORT_DIRECTORY) for end in ("", ".tmp")]
    for name in (CHECKPOINT_DIRECTORY, TENSORBOARD_DIRECTORY, REFIT_DIRECTORY, STATE_DIRECTORY, *exports):
        if tf.io.gfile.exists(join(model_dir, name)):
            tf.io.gfile.rmtree(join(model_dir, name))
