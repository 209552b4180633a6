"""Chooses the devices that a model trains on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import tensorflow as tf
from tensorflow.python.client import device_lib

from pipeline.manifest import DotbiasError
from trainer.devices.cluster import num_workers
from trainer.devices.tpu import is_tpu, make_tpu_strategy


def wants_tpu(name: str) -> bool:
    """Return whether `trainer.strategy` is a TPU; `auto` takes one that `TPU_NAME` names."""
    return name == "tpu" or (name == "auto" and "TPU_NAME" in os.environ)


def make_strategy(name: str) -> tf.distribute.Strategy:
    """Make the `tf.distribute` strategy for `trainer.strategy`: auto, cpu, gpu, multi_worker or tpu.

    Raises:
        DotbiasError: the devices are not there.
    """
    if wants_tpu(name):
        return make_tpu_strategy()
    gpus = tf.config.list_physical_devices("GPU")
    if name == "auto":
        name = "multi_worker" if num_workers() > 1 else "gpu" if gpus else "cpu"
    if name == "cpu":
        if gpus:
            tf.config.set_visible_devices([], "GPU")
        return tf.distribute.get_strategy()
    if name == "gpu":
        if not gpus:
            raise DotbiasError("`trainer.strategy` is gpu, but TensorFlow sees no GPU here; use cpu or auto.")
        return tf.distribute.MirroredStrategy() if len(gpus) > 1 else tf.distribute.get_strategy()
    if num_workers() < 2:
        raise DotbiasError("`trainer.strategy` is multi_worker, but `TF_CONFIG` does not name two or more workers.")
    return tf.distribute.MultiWorkerMirroredStrategy()


def smallest_gpu_bytes(strategy: tf.distribute.Strategy) -> int | None:
    """Return the bytes of the smallest GPU that TensorFlow may take, as each GPU has all tables; None without GPUs."""
    if is_tpu(strategy) or not tf.config.list_logical_devices("GPU"):
        return None
    return min(device.memory_limit for device in device_lib.list_local_devices() if device.device_type == "GPU")


def any_worker(strategy: tf.distribute.Strategy) -> Callable[[Sequence[bool]], list[bool]]:
    """Return a function that says, for each of some flags, whether it is set on any worker.

    It waits until all workers have called it, so all have to call it equally often; all get the same answer.
    """
    if num_workers() < 2:
        return list

    def add_in_replica(flags: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        assert context is not None
        # A copy, so that it lies on a device of the strategy.
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(flags))

    def add(flags: tf.Tensor) -> tf.Tensor:
        return strategy.experimental_local_results(strategy.run(add_in_replica, (flags,)))[0]

    add_in_graph = tf.function(add)
    return lambda flags: [bool(total) for total in add_in_graph(tf.constant(list(flags), tf.float32)).numpy()]


def wants_static_shape(strategy: tf.distribute.Strategy) -> bool:
    """Return whether all batches need one size: on a TPU, and where replicas gather each other's gradients."""
    return is_tpu(strategy) or strategy.num_replicas_in_sync > 1
