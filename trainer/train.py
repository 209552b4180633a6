"""Shards -> trained and exported model.

```
<model_dir>/
  checkpoints/   after each epoch, see `checkpoint`
  tensorboard/   metrics of each epoch
  export/        the SavedModel, of the best epoch's weights
  metrics.json   written last: its presence means that the training is finished
```

Usage: python -m trainer.train --dataset DATASET --model_dir MODEL_DIR [--config FILE.yaml]
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import yaml
from pydantic import ValidationError

from pipeline.manifest import DotbiasError, join
from trainer.callbacks import EpochEnd, Progress, Speedometer
from trainer.checkpoint import CHECKPOINT_DIRECTORY, CheckpointDirectory, TrainingState
from trainer.config import TrainerConfig
from trainer.dataset import Dataset
from trainer.embedding import feature_configs, index_counts, l2_weights
from trainer.evaluate import EVAL_BATCH_SIZE, evaluate
from trainer.export import export_model
from trainer.input_pipeline import Shuffle, num_batches, read_batches
from trainer.integrity import READER_ERRORS, check_shards, find_fault
from trainer.model import DotBias, log_odds
from trainer.optimizers import make_embedding_optimizer, make_optimizer
from trainer.result import check_same_run, read_result, run_fingerprint, tool_versions, write_result
from trainer.strategy import make_strategy

EXPORT_DIRECTORY = "export"
TENSORBOARD_DIRECTORY = "tensorboard"
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
    check_same_run(model_dir, result, Dataset.open(dataset, config), config)
    return True


def train(dataset: str, model_dir: str, config: TrainerConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Trains, or goes on training, until `model_dir` holds a finished model; returns its metrics.

    If they are there already, nothing is done. After an interruption with the same configuration and dataset, training
    goes on after the last complete epoch, with the result that it would have had without; what an interrupted training
    with another configuration left is deleted.

    Args:
        dataset: directory with a manifest, see `pipeline.manifest`.
        model_dir: made if it is not there.
        config: the `trainer` section.
        progress: called with ("train", rows done, rows in all, {"epoch": from 1, "loss": mean of the epoch so far}).

    Raises:
        DotbiasError: dataset, configuration and model directory do not fit together.
    """
    result = read_result(model_dir)
    data = Dataset.open(dataset, config)
    if result is not None:
        check_same_run(model_dir, result, data, config)
        return result
    for split in ("train", "eval"):
        check_shards(data, split, checksums=config.verify_checksums)

    directory = CheckpointDirectory(model_dir)
    state = directory.read_state()
    run = run_fingerprint(data, config)
    if state is None or state.run != run:
        _delete_leftovers(model_dir)
        state = TrainingState(run=run)
    tf.io.gfile.makedirs(directory.path)

    tf.keras.utils.set_random_seed(config.seed)
    strategy = make_strategy(config.strategy)
    if config.batch_size % strategy.num_replicas_in_sync:
        raise DotbiasError(
            f"`trainer.batch_size` should be a multiple of the {strategy.num_replicas_in_sync} replicas. "
            f"Received: {config.batch_size}."
        )
    try:
        with strategy.scope():
            model = build_model(data, config, strategy)
            model.compile(optimizer=make_optimizer(config.optimizer), steps_per_execution=config.steps_per_execution)
        rows_per_second = _fit(model, data, config, strategy, directory, state, progress)
        eval_metrics = evaluate(model, data, "eval")
    except READER_ERRORS as error:
        fault = find_fault(data, "train") or find_fault(data, "eval")
        if fault is None:
            raise
        raise DotbiasError(fault) from error
    export_model(model, data, join(model_dir, EXPORT_DIRECTORY))
    result = {
        "config": config.model_dump(mode="json"),
        "dataset": {
            "path": dataset,
            "fingerprint": data.fingerprint,
            "rows": {name: split.rows for name, split in data.manifest.splits.items()},
        },
        "train": {
            "rows_per_second": rows_per_second,
            "best_epoch": state.best_epoch,
            "stopped_early": state.stopped_early,
            "epochs": [record.model_dump() for record in state.epochs],
        },
        "eval": eval_metrics,
        "versions": tool_versions(),
    }
    write_result(model_dir, result)
    return result


def build_model(data: Dataset, config: TrainerConfig, strategy: tf.distribute.Strategy) -> DotBias:
    """The model for a dataset, with its initial values; to be called in the strategy's scope."""
    return DotBias(
        data.sides,
        feature_configs(data.table_rows, config),
        initial_bias=log_odds(data.split("train")),
        positive_at=data.manifest.label.positive_at,
        l2=config.l2,
        l2_weights={name: l2_weights(counts) for name, counts in index_counts(data).items()} if config.l2 else {},
        embedding_optimizer=make_embedding_optimizer(config.optimizer, strategy),
    )


def _fit(
    model: DotBias,
    data: Dataset,
    config: TrainerConfig,
    strategy: tf.distribute.Strategy,
    directory: CheckpointDirectory,
    state: TrainingState,
    progress: Progress | None,
) -> float | None:
    """Trains from `state` to the end, which `state` then holds, and leaves the best weights in the model.

    Returns rows per second, None if there was nothing left to train.
    """
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    first_epoch = len(state.epochs)
    if first_epoch:
        _log.info("Going on after epoch %d of at most %d.", first_epoch, config.epochs)
        directory.restore(checkpoint, first_epoch).assert_existing_objects_matched()
    rows = data.split("train").rows
    shuffle = Shuffle(config.seed, config.epochs, first_epoch)
    speedometer = Speedometer(rows, config.epochs, config.batch_size, progress)
    if first_epoch < config.epochs and not state.stopped_early:
        model.fit(
            strategy.distribute_datasets_from_function(
                lambda context: read_batches(data, "train", config.batch_size, shuffle=shuffle, context=context)
            ),
            steps_per_epoch=num_batches(rows, config.batch_size),
            initial_epoch=first_epoch,
            epochs=config.epochs,
            validation_data=read_batches(data, "eval", EVAL_BATCH_SIZE) if data.split("eval").rows else None,
            callbacks=[
                speedometer,
                tf.keras.callbacks.TensorBoard(
                    join(directory.model_dir, TENSORBOARD_DIRECTORY), write_graph=False, profile_batch=0
                ),
                EpochEnd(directory, checkpoint, state, _monitor(data, config), config.early_stopping.patience),
            ],
            verbose=0,
        )
    # From the file even where the last epoch was the best: what is exported is what was saved.
    directory.restore(tf.train.Checkpoint(model=model), state.best_epoch).expect_partial()
    return speedometer.rows_per_second


def _monitor(data: Dataset, config: TrainerConfig) -> str | None:
    """The eval metric that early stopping goes by; None: train all epochs."""
    split = data.split("eval")
    if not split.rows:
        _log.warning("The eval split has no rows: training all %d epochs, without early stopping.", config.epochs)
        return None
    if config.early_stopping.monitor == "auc" and split.positive_rows in (0, split.rows):
        _log.warning("The eval split has labels of one class only, so no AUC: stopping by label-crossentropy.")
        return "label-crossentropy"
    return config.early_stopping.monitor


def _delete_leftovers(model_dir: str) -> None:
    """Deletes what a training writes, and nothing else."""
    for name in (CHECKPOINT_DIRECTORY, TENSORBOARD_DIRECTORY, EXPORT_DIRECTORY, EXPORT_DIRECTORY + ".tmp"):
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
    """The command; returns the exit code: 0 done, 1 failed, 2 wrong configuration."""
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
    for name, value in result["eval"].items():
        print(f"eval {name}: {value:.4f}")
    print(f"export: {join(flags.model_dir, EXPORT_DIRECTORY)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
