"""Trains a model on a TPU, and takes the best weights to the host.

The process that trains has the model twice: on the TPU, and on the CPU, where it is averaged and measured after each
period. All that comes after training, calibration and export, happens in the process that started it and needs no TPU.
"""

from __future__ import annotations

import tensorflow as tf

from pipeline.manifest import DotbiasError, Progress
from trainer.build import build_model, compiled_model
from trainer.config import TrainerConfig
from trainer.data.cache import close_cache, open_cache
from trainer.data.dataset import Dataset
from trainer.data.faults import explanation
from trainer.data.periods import Periods
from trainer.devices.strategy import make_strategy
from trainer.devices.tpu import check_batch
from trainer.loop.checkpoint import CheckpointDirectory, TrainingState
from trainer.loop.defaults import objective_of
from trainer.loop.fit import best_on_host, fit
from trainer.loop.prepare import set_seeds
from trainer.model.dot_bias import DotBias
from trainer.model.tables import index_counts
from trainer.tpu.process import run_alone


def fit_on_tpu(
    data: Dataset,
    config: TrainerConfig,
    directory: CheckpointDirectory,
    state: TrainingState,
    progress: Progress | None = None,
    *,
    most_periods: int | None = None,
) -> tuple[DotBias, TrainingState, float | None]:
    """Train from `state` to the end in a process of its own, with checkpoints in `directory`.

    Returns a model on the CPU with the best weights, the final state, and rows per second. `config` has automatic
    values filled in. Raises as `loop.fit.fit` does.
    """
    speed = None
    periods = Periods.of(data, config, workers=1, most=most_periods)
    if len(state.periods) < periods.count and not state.stopped_early:
        speed = run_alone(fit_alone, data, config, directory, state, most_periods, progress=progress)
        state = directory.last_state() or state
    model = compiled_model(data, config, tf.distribute.get_strategy())
    best_on_host(model, data, config, directory, state)
    return model, state, speed


def fit_alone(
    data: Dataset,
    config: TrainerConfig,
    directory: CheckpointDirectory,
    state: TrainingState,
    most_periods: int | None,
    progress: Progress,
) -> float | None:
    """Train from `state` to the end on the TPU; to be called once in a process."""
    strategy = make_strategy("tpu")
    finds_items = objective_of(config, data) == "softmax"
    assert config.batch_size is not None
    check_batch(config.batch_size, config.softmax.candidates if finds_items else 0, strategy)
    set_seeds(config)
    cached = open_cache(data, config.cache, directory.model_dir)
    try:
        counts = index_counts(cached) if config.l2 or (finds_items and config.softmax.in_batch) else {}
        host = build_model(cached, config, tf.distribute.get_strategy(), counts)
        host.compile()
        model = compiled_model(cached, config, strategy, counts)
        return fit(model, cached, config, strategy, directory, state, progress, most_periods=most_periods, host=host)
    except tf.errors.OpError as error:
        if (message := explanation(error, cached)) is None:
            raise
        raise DotbiasError(message) from error
    finally:
        close_cache(cached)
