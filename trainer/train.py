"""Shards -> trained and exported model.

```
<model_dir>/
  checkpoints/          after each epoch and every few minutes, see `checkpoint`
  tensorboard/          metrics of each epoch
  export_before_refit/  the SavedModel of the best epoch's weights, which have not been trained on eval rows
  refit/                checkpoints and metrics of the training on train and eval rows, see `refit`
  export/               the SavedModel, of the refit, or else of the best epoch's weights
  cache-0/              decoded shards while training runs, with `trainer.cache: disk`
  metrics.json          written last: its presence means that the training is finished
```

Usage: python -m trainer.train --dataset DATASET --model_dir MODEL_DIR [--config FILE.yaml]
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import yaml
from pydantic import ValidationError

from pipeline.manifest import DotbiasError, Progress, fingerprint, join, tool_versions
from trainer.config import TrainerConfig
from trainer.data.cache import cache_fault, close_cache, memory_of_cache, open_cache
from trainer.data.dataset import Dataset
from trainer.data.integrity import READER_ERRORS, check_shards, find_fault
from trainer.data.reader import memory_of_shards
from trainer.devices.cluster import num_workers, worker_index
from trainer.devices.memory import available_bytes, check_memory
from trainer.devices.strategy import any_worker, make_strategy, smallest_gpu_bytes
from trainer.loop.checkpoint import CHECKPOINT_DIRECTORY, CheckpointDirectory, TrainingState
from trainer.loop.defaults import with_automatic_values
from trainer.loop.evaluate import evaluate
from trainer.loop.fit import TENSORBOARD_DIRECTORY, fit
from trainer.loop.interruption import Interrupted
from trainer.loop.refit import REFIT_DIRECTORY, refit_config, with_eval_rows
from trainer.model.dot_bias import DotBias, log_odds
from trainer.model.optimizers import make_embedding_optimizer, make_optimizer
from trainer.model.tables import feature_configs, index_counts, l2_weights
from trainer.output.export import export_model
from trainer.output.predictions import calibrate
from trainer.output.result import check_same_training, defined_metrics, read_result, training_fingerprint, write_result

EXPORT_DIRECTORY = "export"
EXPORT_BEFORE_REFIT_DIRECTORY = "export_before_refit"
# Not `__name__`, which is `__main__` where this module is the command.
_log = logging.getLogger("trainer.train")


def is_complete(dataset: str, model_dir: str, config: TrainerConfig) -> bool:
    """Whether `train` with these arguments would find its work done.

    Raises:
        DotbiasError: the directory holds a finished model of another configuration or dataset.
    """
    result = read_result(model_dir)
    if result is None:
        return False
    data = Dataset.open(dataset, config)
    check_same_training(model_dir, result, data, with_automatic_values(config, data))
    return True


def train(dataset: str, model_dir: str, config: TrainerConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Trains, or goes on training, until `model_dir` holds a finished model; returns its metrics.

    If they are there already, nothing is done. After an interruption with the same configuration and dataset, training
    goes on from the last checkpoint, with the result that it would have had without; what an interrupted training with
    another configuration left is deleted.

    Args:
        dataset: directory with a manifest, see `pipeline.manifest`.
        model_dir: made if it is not there.
        config: the `trainer` section.
        progress: called with ("train", rows done, rows in all, {"epoch": from 1, "loss": mean of the epoch so far}).

    Raises:
        DotbiasError: dataset, configuration and model directory do not fit together, or training failed.
        Interrupted: by Ctrl-C or SIGTERM; it can go on.
    """
    result = read_result(model_dir)
    data = Dataset.open(dataset, config)
    config = with_automatic_values(config, data)
    if result is not None:
        check_same_training(model_dir, result, data, config)
        return result
    # First of all: several workers find each other before TensorFlow does anything else.
    strategy = make_strategy(config.strategy)
    assert config.batch_size is not None
    if config.batch_size % strategy.num_replicas_in_sync:
        raise DotbiasError(
            f"`trainer.batch_size` should be a multiple of the {strategy.num_replicas_in_sync} replicas. "
            f"Received: {config.batch_size}."
        )
    cache = memory_of_cache(data, config.cache)
    gpu, shards = smallest_gpu_bytes(strategy), memory_of_shards(data)
    check_memory(data.table_rows, config, available_bytes(), shards=shards, cache=cache, gpu=gpu)
    for split in ("train", "eval"):
        check_shards(data, split, checksums=config.verify_checksums)
    tf.keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()

    identity = training_fingerprint(data, config)
    refitted = None
    data = open_cache(data, config.cache, model_dir, worker_index())
    try:
        model, state, rows_per_second = _fit_model(data, config, strategy, model_dir, identity, progress)
        eval_metrics = evaluate(model, data, "eval")
        calibrated = calibrate(model, data, "eval")
        if config.refit and data.split("eval").rows:
            # To be measured on the eval rows, which the other export has been trained on.
            model.set_calibration(calibrated.maps)
            if worker_index() == 0:
                export_model(model, data, join(model_dir, EXPORT_BEFORE_REFIT_DIRECTORY))
            # Two models need not fit into memory; cycles of references would keep the first.
            del model
            gc.collect()
            model, refitted = _refit_model(data, config, strategy, model_dir, identity, state.best_epoch, progress)
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
    splits = data.manifest.splits
    result = {
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
        # Rows that the exported model was trained on would flatter it.
        "eval_of": "the exported model" if refitted is None else "the model before the refit",
        "eval": defined_metrics(eval_metrics | calibrated.metrics, splits["eval"]),
        "calibration": calibrated.report,
        "versions": tool_versions(),
    }
    if worker_index() == 0:
        write_result(model_dir, result)
    return result


def build_model(data: Dataset, config: TrainerConfig, strategy: tf.distribute.Strategy) -> DotBias:
    """The model for a dataset, with its initial values; to be called in the strategy's scope."""
    assert config.l2 is not None and config.bias_l2_factor is not None
    return DotBias(
        data.sides,
        feature_configs(data.table_rows, config),
        initial_bias=log_odds(data.split("train")),
        positive_at=data.manifest.label.positive_at,
        l2=config.l2,
        bias_l2_factor=config.bias_l2_factor,
        l2_weights={name: l2_weights(counts) for name, counts in index_counts(data).items()} if config.l2 else {},
        embedding_optimizer=make_embedding_optimizer(config.optimizer, strategy),
    )


def _fit_model(
    data: Dataset,
    config: TrainerConfig,
    strategy: tf.distribute.Strategy,
    model_dir: str,
    identity: str,
    progress: Progress | None,
    *,
    early_stopping: bool = True,
) -> tuple[DotBias, TrainingState, float | None]:
    """Builds a model and trains it, with checkpoints in `model_dir`: the model, how it went, rows per second."""
    directory = CheckpointDirectory(model_dir, config.checkpoint.keep, worker_index(), num_workers())
    state = _begin(directory, identity, strategy)
    with strategy.scope():
        model = build_model(data, config, strategy)
        model.compile(optimizer=make_optimizer(config.optimizer), steps_per_execution=config.steps_per_execution)
    return model, state, fit(model, data, config, strategy, directory, state, progress, early_stopping=early_stopping)


def _refit_model(
    data: Dataset,
    config: TrainerConfig,
    strategy: tf.distribute.Strategy,
    model_dir: str,
    identity: str,
    best_epoch: int,
    progress: Progress | None,
) -> tuple[DotBias, dict[str, Any]]:
    """A model trained anew on train and eval rows, and what `metrics.json` says of it."""
    everything = with_eval_rows(data)
    model, state, _ = _fit_model(
        everything,
        refit_config(config, best_epoch),
        strategy,
        join(model_dir, REFIT_DIRECTORY),
        fingerprint({"training": identity, "refit": best_epoch}),
        None if progress is None else lambda _, *done: progress("refit", *done),
        early_stopping=False,
    )
    split = everything.split("train")
    epochs = [{"epoch": record.epoch, "train": defined_metrics(record.train, split)} for record in state.epochs]
    return model, {"rows": split.rows, "epochs": epochs}


def _begin(directory: CheckpointDirectory, identity: str, strategy: tf.distribute.Strategy) -> TrainingState:
    """What the training goes on from: the state of the last checkpoint of the same run, or one with nothing done."""
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
    """What made a step fail, if that is the cache, a damaged shard or another worker that is gone."""
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
    """Deletes what a training writes, and nothing else."""
    exports = [name + end for name in (EXPORT_BEFORE_REFIT_DIRECTORY, EXPORT_DIRECTORY) for end in ("", ".tmp")]
    for name in (CHECKPOINT_DIRECTORY, TENSORBOARD_DIRECTORY, REFIT_DIRECTORY, *exports):
        if tf.io.gfile.exists(join(model_dir, name)):
            tf.io.gfile.rmtree(join(model_dir, name))


def _log_progress(every_seconds: float = 5.0) -> Progress:
    """A line every few seconds, for a terminal as for a log."""
    began = last = time.monotonic()

    def progress(stage: str, done: int, total: int | None, metrics: Mapping[str, float]) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= every_seconds or done == total:
            last = now
            values = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            _log.info("%s: %s of %s rows, %s, %.0f s", stage, f"{done:,}", f"{total:,}", values, now - began)

    return progress


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code: 0 done, 1 failed, 2 wrong configuration, 130 Ctrl-C, 143 SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m trainer.train", description="Trains a model on a dataset.")
    parser.add_argument("--dataset", required=True, help="directory with manifest.json")
    parser.add_argument("--model_dir", required=True, help="directory for checkpoints, metrics and export")
    parser.add_argument("--config", help="YAML file with a `trainer` section; defaults without it")
    flags = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    _log.setLevel(logging.INFO)
    try:
        config = TrainerConfig()
        if flags.config:
            with tf.io.gfile.GFile(flags.config) as file:
                config = TrainerConfig.model_validate((yaml.safe_load(file.read()) or {}).get("trainer") or {})
    except (ValidationError, yaml.YAMLError, tf.errors.OpError) as error:
        print(f"{flags.config}: {error}", file=sys.stderr)
        return 2
    try:
        result = train(flags.dataset, flags.model_dir, config, _log_progress())
    except DotbiasError as error:
        print(error, file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    for name, value in result["eval"].items():
        print(f"eval {name}: {'not defined' if value is None else f'{value:.4f}'}")
    print(f"export: {join(flags.model_dir, EXPORT_DIRECTORY)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
