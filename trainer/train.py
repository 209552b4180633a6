"""Trains a model on the shards of a dataset, and exports it.

```
<model_dir>/
  checkpoints/          after each epoch and every few minutes, until training is finished, see `loop.checkpoint`
  tensorboard/          metrics of each epoch
  export_before_refit/  the SavedModel of the best epoch's weights, which have not been trained on eval rows
  refit/                checkpoints and metrics of the training on train and eval rows, see `loop.refit`
  export/               the SavedModel, of the refit, or else of the best epoch's weights
  state/                weights and optimizer slots of the exported model, for a warm start, see `loop.saved_state`
  cache-0/              decoded shards while training runs, with `trainer.cache: disk`
  metrics.json          written last: its presence means that the training is finished
```
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from pipeline.manifest import DotbiasError, Progress, fingerprint, join, tool_versions
from trainer.config import TrainerConfig
from trainer.data.cache import cache_fault, close_cache, open_cache
from trainer.data.candidates import Candidates
from trainer.data.dataset import Dataset
from trainer.data.integrity import READER_ERRORS, find_fault
from trainer.devices.cluster import num_workers, worker_index
from trainer.devices.strategy import any_worker, is_tpu, make_strategy
from trainer.loop.checkpoint import CHECKPOINT_DIRECTORY, CheckpointDirectory, TrainingState, short
from trainer.loop.defaults import objective_of, with_automatic_values
from trainer.loop.evaluate import evaluate
from trainer.loop.fit import TENSORBOARD_DIRECTORY, fit
from trainer.loop.prepare import prepare
from trainer.loop.ranking import RANKING_METRICS
from trainer.loop.refit import REFIT_DIRECTORY, refit_config, with_eval_rows
from trainer.loop.saved_state import STATE_DIRECTORY, SavedState, save_state
from trainer.loop.warm_start import ColdStart, Former, WarmStart
from trainer.model.dot_bias import DotBias, log_odds
from trainer.model.optimizers import make_embedding_optimizer, make_optimizer
from trainer.model.softmax import SoftmaxDotBias
from trainer.model.tables import Counts, feature_configs, index_counts, l2_weights
from trainer.output.export import export_model
from trainer.output.predictions import calibrate
from trainer.output.result import check_same_training, defined_metrics, read_result, training_fingerprint, write_result

EXPORT_DIRECTORY = "export"
EXPORT_BEFORE_REFIT_DIRECTORY = "export_before_refit"
_log = logging.getLogger("trainer.train")


def is_complete(dataset: str, model_dir: str, config: TrainerConfig, start: WarmStart | None = None) -> bool:
    """Return whether `train` with these arguments would find its work done.

    Raises:
        DotbiasError: the directory holds a finished model of another configuration, dataset or start.
    """
    return _finished(Dataset.open(dataset, config), model_dir, config, start) is not None


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
    epoch is better. If they do not fit, it begins with random values; `warm_start` in the metrics says why.

    Args:
        dataset: directory with a manifest, see `pipeline.manifest`.
        model_dir: made if it is not there.
        config: the `trainer` section.
        progress: called with ("train", rows done, rows in all, {"epoch": from 1, "loss": mean of the epoch so far}).
        start: the former training; None to begin with random values.

    Raises:
        DotbiasError: dataset, configuration and model directory do not fit together, or training failed.
        Interrupted: by Ctrl-C or SIGTERM; it can go on.
    """
    data = Dataset.open(dataset, config)
    if (result := _finished(data, model_dir, config, start)) is not None:
        if worker_index() == 0:
            delete_checkpoints(model_dir)
        return result
    # First of all: several workers find each other before TensorFlow does anything else.
    strategy = make_strategy(config.strategy)
    former, started = _open_former(start, data, config, strategy)
    config = with_automatic_values(config, data, warm=former is not None)
    prepare(data, config, strategy)
    identity = training_fingerprint(data, config, None if former is None else former.fingerprint)
    refitted = None
    data = open_cache(data, config.cache, model_dir, worker_index())
    try:
        model, state, rows_per_second = _fit_model(data, config, strategy, model_dir, identity, progress, former)
        eval_metrics = evaluate(model, data, "eval") | _ranked(state)
        will_refit = config.refit and data.split("eval").rows > 0
        if not will_refit:
            _finish(model, data, config, model_dir, identity)
        else:
            model.fold(data)
        calibrated = calibrate(model, data, "eval")
        if will_refit:
            # Exported for measuring on the eval rows; the refitted model is trained on them.
            model.set_calibration(calibrated.maps)
            if worker_index() == 0:
                export_model(model, data, join(model_dir, EXPORT_BEFORE_REFIT_DIRECTORY))
            # Two models need not fit into memory; cycles of references would keep the first.
            del model
            gc.collect()
            model, refitted = _refit_model(
                data, config, strategy, model_dir, identity, state.best_epoch, progress, former
            )
            _finish(model, data, config, model_dir, identity)
    except tf.errors.OpError as error:
        message = _explanation(error, data)
        if message is None:
            raise
        raise DotbiasError(message) from error
    finally:
        close_cache(data)
    model.set_calibration(calibrated.maps)
    if worker_index() == 0:
        export_model(model, data, join(model_dir, EXPORT_DIRECTORY))
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
                for record in state.epochs
            ],
            "refit": refitted,
        },
        "warm_start": started,
        # The exported model may have been trained on the eval rows, so its metrics there would be too good.
        "eval_of": "the exported model" if refitted is None else "the model before the refit",
        "eval": defined_metrics(eval_metrics | calibrated.metrics, splits["eval"]),
        "calibration": calibrated.report,
        "versions": tool_versions(),
    }
    if worker_index() == 0:
        write_result(model_dir, result)
        delete_checkpoints(model_dir)
    return result


def _finished(data: Dataset, model_dir: str, config: TrainerConfig, start: WarmStart | None) -> dict[str, Any] | None:
    """Return the metrics of a finished training, None if there is none; raise `DotbiasError` if it is another one."""
    result = read_result(model_dir)
    if result is None:
        return None
    started = result.get("warm_start")
    # Automatic values depend on whether the finished training started from weights.
    warm = started is not None and "cold" not in started
    complete = with_automatic_values(config, data, warm=warm)
    check_same_training(model_dir, result, data, complete, None if start is None else _fingerprint_of(start))
    return result


def _fingerprint_of(start: WarmStart) -> str | None:
    """Return the fingerprint of a finished training; None if it is not finished."""
    result = read_result(start.model_dir)
    return None if result is None else result.get("fingerprint")


def _open_former(
    start: WarmStart | None, data: Dataset, config: TrainerConfig, strategy: tf.distribute.Strategy
) -> tuple[Former | None, dict[str, Any] | None]:
    """Return the training to start from, None for a cold start, and what `metrics.json` says of the start."""
    if start is None:
        return None, None
    identity = _fingerprint_of(start)
    started = {"from": identity, "model_dir": start.model_dir}
    try:
        if is_tpu(strategy):
            raise ColdStart("weights on a TPU cannot be assigned row by row")
        return Former.open(start, identity, data, config), started
    except ColdStart as error:
        _log.warning("Training starts from random values, not from %s: %s.", start.model_dir, error)
        return None, {**started, "cold": str(error)}


def _ranked(state: TrainingState) -> dict[str, float]:
    """Return the ranking metrics of the best epoch, which were measured with the weights that it saved."""
    start = {} if state.warm_start is None else state.warm_start.eval
    best = state.epochs[state.best_epoch - 1].eval if state.best_epoch else start
    return {name: best[name] for name in RANKING_METRICS if name in best}


def _finish(model: DotBias, data: Dataset, config: TrainerConfig, model_dir: str, identity: str) -> None:
    """Save the state of a trained model for a warm start, and fold its tables for the export."""
    if not is_tpu(model.distribute_strategy):
        state = SavedState(
            fingerprint=identity,
            dataset=data.fingerprint,
            embedding_dim=config.embedding_dim,
            optimizer=config.optimizer.name,
            objective=objective_of(config, data),
            num_bins=dict(data.num_bins),
        )
        save_state(model, model_dir, state, worker_index())
    model.fold(data)


def build_model(
    data: Dataset, config: TrainerConfig, strategy: tf.distribute.Strategy, counts: Mapping[str, Counts] | None = None
) -> DotBias:
    """Build the model for a dataset, with its initial values; to be called in the strategy's scope.

    `counts` are those of `index_counts`, where they are known already.
    """
    assert config.l2 is not None and config.bias_l2_factor is not None
    finds_items = objective_of(config, data) == "softmax"
    if counts is None:
        counts = index_counts(data) if config.l2 or (finds_items and config.softmax.in_batch) else {}
    tables = data.sides, feature_configs(data.table_rows, config)
    options: dict[str, Any] = {
        "positive_at": data.manifest.label.positive_at,
        "l2": config.l2,
        "bias_l2_factor": config.bias_l2_factor,
        "l2_weights": {name: l2_weights(of_feature) for name, of_feature in counts.items()} if config.l2 else {},
        "embedding_optimizer": make_embedding_optimizer(config.optimizer, strategy),
    }
    if not finds_items:
        return DotBias(*tables, initial_bias=log_odds(data.split("train")), **options)
    candidates = Candidates.of(data, config)
    share = None
    if config.softmax.in_batch:
        of_items = counts[candidates.feature]
        share = of_items / of_items.sum()
    return SoftmaxDotBias(*tables, candidates=candidates, softmax=config.softmax, share=share, **options)


def _fit_model(
    data: Dataset,
    config: TrainerConfig,
    strategy: tf.distribute.Strategy,
    model_dir: str,
    identity: str,
    progress: Progress | None,
    former: Former | None,
    *,
    early_stopping: bool = True,
) -> tuple[DotBias, TrainingState, float | None]:
    """Build a model and train it, with checkpoints in `model_dir`; return model, final state, rows per second."""
    directory = CheckpointDirectory(model_dir, config.checkpoint.keep, worker_index(), num_workers())
    state = _begin(directory, identity, strategy)
    model = compiled_model(data, config, strategy)
    speed = fit(model, data, config, strategy, directory, state, progress, former=former, early_stopping=early_stopping)
    return model, state, speed


def compiled_model(
    data: Dataset, config: TrainerConfig, strategy: tf.distribute.Strategy, counts: Mapping[str, Counts] | None = None
) -> DotBias:
    """Build the model with its optimizer; see `build_model`."""
    with strategy.scope():
        model = build_model(data, config, strategy, counts)
        model.compile(optimizer=make_optimizer(config.optimizer), steps_per_execution=config.steps_per_execution)
    return model


def _refit_model(
    data: Dataset,
    config: TrainerConfig,
    strategy: tf.distribute.Strategy,
    model_dir: str,
    identity: str,
    best_epoch: int,
    progress: Progress | None,
    former: Former | None,
) -> tuple[DotBias, dict[str, Any]]:
    """Train a model on train and eval rows, from the same start; return it and its part of `metrics.json`."""
    everything = with_eval_rows(data)
    model, state, _ = _fit_model(
        everything,
        refit_config(config, best_epoch),
        strategy,
        join(model_dir, REFIT_DIRECTORY),
        fingerprint({"training": identity, "refit": best_epoch}),
        None if progress is None else lambda _, *done: progress("refit", *done),
        former,
        early_stopping=False,
    )
    split = everything.split("train")
    epochs = [{"epoch": record.epoch, "train": defined_metrics(record.train, split)} for record in state.epochs]
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


def _explanation(error: tf.errors.OpError, data: Dataset) -> str | None:
    """Return the cause of a failed step if it is the cache, a damaged shard or a lost worker; else None."""
    if fault := cache_fault(error, data):
        return fault
    if isinstance(error, READER_ERRORS) and (fault := find_fault(data, "train") or find_fault(data, "eval")):
        return fault
    if num_workers() > 1:
        return (
            f"Another worker does not answer any more ({type(error).__name__}). Start all workers again with the same "
            "command: training goes on from the last checkpoint."
        )
    return None


def _delete_leftovers(model_dir: str) -> None:
    """Delete the files that a training writes, and nothing else."""
    exports = [name + end for name in (EXPORT_BEFORE_REFIT_DIRECTORY, EXPORT_DIRECTORY) for end in ("", ".tmp")]
    for name in (CHECKPOINT_DIRECTORY, TENSORBOARD_DIRECTORY, REFIT_DIRECTORY, STATE_DIRECTORY, *exports):
        if tf.io.gfile.exists(join(model_dir, name)):
            tf.io.gfile.rmtree(join(model_dir, name))


def delete_checkpoints(model_dir: str) -> None:
    """Delete the checkpoints of a finished training; a failure is only a warning."""
    for directory in (model_dir, join(model_dir, REFIT_DIRECTORY)):
        path = join(directory, CHECKPOINT_DIRECTORY)
        try:
            if tf.io.gfile.exists(path):
                tf.io.gfile.rmtree(path)
        except (tf.errors.OpError, OSError) as error:
            _log.warning("The checkpoints in %s stay (%s); delete them to free the disk.", path, short(error))
