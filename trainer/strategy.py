"""On which devices a model trains."""

from __future__ import annotations

import json
import os

import tensorflow as tf

from pipeline.manifest import DotbiasError


def make_strategy(name: str) -> tf.distribute.Strategy:
    """The `tf.distribute` strategy for `trainer.strategy`: auto, cpu, gpu, multi_worker or tpu.

    Raises:
        DotbiasError: what was asked for is not there.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if name == "auto":
        name = _detect(bool(gpus))
    if name == "cpu":
        if gpus:
            tf.config.set_visible_devices([], "GPU")
        return tf.distribute.get_strategy()
    if name == "gpu":
        if not gpus:
            raise DotbiasError("`trainer.strategy` is gpu, but TensorFlow sees no GPU here; use cpu or auto.")
        return tf.distribute.MirroredStrategy() if len(gpus) > 1 else tf.distribute.get_strategy()
    if name == "multi_worker":
        if num_workers() < 2:
            raise DotbiasError("`trainer.strategy` is multi_worker, but `TF_CONFIG` does not name two or more workers.")
        return tf.distribute.MultiWorkerMirroredStrategy()
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(os.environ.get("TPU_NAME", "local"))
    except (ValueError, tf.errors.OpError) as error:
        raise DotbiasError(f"`trainer.strategy` is tpu, but no TPU can be reached: {error}") from None
    return tf.distribute.TPUStrategy(resolver)


def _detect(has_gpu: bool) -> str:
    if "TPU_NAME" in os.environ or tf.config.list_physical_devices("TPU"):
        return "tpu"
    if num_workers() > 1:
        return "multi_worker"
    return "gpu" if has_gpu else "cpu"


def num_workers() -> int:
    """Workers that `TF_CONFIG` lists; 1 without it."""
    cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    return len(cluster.get("worker", [])) + len(cluster.get("chief", [])) or 1


def is_tpu(strategy: tf.distribute.Strategy) -> bool:
    return isinstance(strategy, tf.distribute.TPUStrategy)
