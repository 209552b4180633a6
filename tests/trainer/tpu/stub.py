"""A TPU that is not there: TensorFlow's own `TPUStrategy` and embeddings, with only the hardware left out.

TensorFlow places on the CPU what asks for a device that does not exist. So `TPUStrategy` can be made from a topology
alone, and makes variables, embeddings and the graph of a training step as on a TPU. What is replaced is what talks to
the hardware: for `TPUEmbedding`, six operations; to run a step, `TPUStrategy.run`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.core.protobuf.tpu import topology_pb2
from tensorflow.python.client.session import _DeviceAttributes
from tensorflow.python.distribute import tpu_strategy
from tensorflow.python.ops.resource_variable_ops import ResourceVariable
from tensorflow.python.tpu import tpu, tpu_embedding_v2
from tensorflow.python.tpu.ops import tpu_ops
from tensorflow.python.tpu.tpu_system_metadata import TPUSystemMetadata

from trainer.tpu.fitting import fit_alone


class Resolver:
    """Stands for `TPUClusterResolver`: what TensorFlow asks a TPU about itself.

    `feature` is UNSUPPORTED, V1 or V2.
    """

    def __init__(self, feature: str, cores: int) -> None:
        self.tpu_hardware_feature = topology_pb2.TPUHardwareFeature(
            embedding_feature=topology_pb2.TPUHardwareFeature.EmbeddingFeature.Value(feature),
            num_embedding_devices_per_chip=4,
        )
        names = [f"/job:localhost/replica:0/task:0/device:TPU:{core}" for core in range(cores)]
        self._metadata = TPUSystemMetadata(
            num_cores=cores,
            num_hosts=1,
            num_of_cores_per_host=cores,
            topology=None,
            devices=[_DeviceAttributes(name, "TPU", 1, 1) for name in names],
        )

    def get_tpu_system_metadata(self) -> TPUSystemMetadata:
        return self._metadata


def stub_strategy(feature: str, cores: int = 2) -> tf.distribute.TPUStrategy:
    return tf.distribute.TPUStrategy(Resolver(feature, cores))


class Engine:
    """Stands for the embedding hardware of a TPU of one core: its own copy of the tables, moved by SGD.

    As on a TPU, the tables come from the host's variables when a checkpoint is read, and go there when one is written.
    """

    def __init__(self) -> None:
        self.is_initialized = False
        self.tables: dict[str, tf.Variable] = {}
        self._looked_up: list[tf.Tensor] = []

    def install(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(tpu_ops, "is_tpu_embedding_initialized", lambda: self.is_initialized)
        patch.setattr(tpu, "initialize_system_for_tpu_embedding", self._initialize)
        patch.setattr(tpu_embedding_v2, "_load_variables_impl", self._load)
        patch.setattr(tpu_embedding_v2, "_retrieve_variables_impl", self._retrieve)
        patch.setattr(tpu_ops, "enqueue_tpu_embedding_arbitrary_tensor_batch", self._enqueue)
        patch.setattr(tpu_ops, "recv_tpu_embedding_activations", self._receive)
        patch.setattr(tpu_ops, "send_tpu_embedding_gradients", self._send)

    def _initialize(self, proto: Any) -> None:
        self.is_initialized = True

    def _load(self, config: bytes, hosts: Any, variables: Mapping[str, Any], tables: Any) -> None:
        self._configs = tables
        for name, of_table in variables.items():
            rows = tf.concat([part.read_value() for part in of_table["parameters"].variables], axis=0)
            if name not in self.tables:
                with tf.init_scope():
                    # Not one of the strategy's variables.
                    self.tables[name] = ResourceVariable(rows, trainable=False)
            self.tables[name].assign(rows)

    def _retrieve(self, config: bytes, hosts: Any, variables: Mapping[str, Any], tables: Any) -> None:
        for name, of_table in variables.items():
            first = 0
            for part in of_table["parameters"].variables:
                part.assign(self.tables[name][first : first + part.shape[0]])
                first += part.shape[0]

    def _enqueue(self, embedding_indices: list[tf.Tensor], **_: Any) -> tf.Operation:
        # The features of `DotBias` have a table each, in the order of the tables.
        self._looked_up = embedding_indices
        return tf.no_op()

    def _receive(self, num_outputs: int, config: bytes) -> list[tf.Tensor]:
        pairs = zip(self._configs, self._looked_up, strict=True)
        return [tf.identity(tf.gather(self.tables[table.name], ids)) for table, ids in pairs]

    def _send(self, inputs: list[tf.Tensor], learning_rates: Any, config: bytes) -> tf.Operation:
        moves = []
        for table, ids, gradient in zip(self._configs, self._looked_up, inputs, strict=True):
            step = tf.IndexedSlices(table.optimizer.learning_rate * gradient, ids)
            moves.append(self.tables[table.name].scatter_sub(step))
        return tf.group(moves)


def run_here(strategy: tf.distribute.TPUStrategy, function: Any, args: Any = (), *_: Any, **__: Any) -> Any:
    """Stands for `TPUStrategy.run` on one core, without XLA."""
    with tpu_strategy._TPUReplicaContext(strategy, replica_id_in_sync_group=0):
        return function(*args)


def install_running(patch: pytest.MonkeyPatch) -> Engine:
    """Let `trainer.strategy: tpu` be one core with embedding hardware, on which a step runs."""
    engine = Engine()
    engine.install(patch)

    def strategy() -> tf.distribute.TPUStrategy:
        one_core = stub_strategy("V1", cores=1)
        # All copies of a variable in one, which gradients outside of XLA do not find.
        one_core._enable_packed_variable_in_eager_mode = False
        return one_core

    patch.setattr(tpu_strategy.TPUStrategyV2, "run", run_here)
    patch.setattr("trainer.devices.strategy.make_tpu_strategy", strategy)
    return engine


def fit_alone_on_stub(*arguments: Any) -> float | None:
    """`fit_alone`, for a process that has no TPU."""
    with pytest.MonkeyPatch.context() as patch:
        install_running(patch)
        return fit_alone(*arguments)
