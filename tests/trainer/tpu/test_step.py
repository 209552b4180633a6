"""The whole step of a training is a graph that a TPU takes, as far as TensorFlow checks it before the hardware does."""

from __future__ import annotations

from collections import Counter

import pytest
import tensorflow as tf

from tests.trainer.tpu.stub import Engine, stub_strategy
from trainer.build import build_model, compiled_model
from trainer.config import SoftmaxConfig, TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.reader import Shuffle, read_batches
from trainer.devices.tpu import input_options
from trainer.loop.defaults import with_automatic_values

SOFTMAX = SoftmaxConfig(candidates=16, in_batch=8)
OPERATIONS = {
    "UNSUPPORTED": {"TPUReplicateMetadata": 1},
    "V1": {
        "EnqueueTPUEmbeddingArbitraryTensorBatch": 1,
        "RecvTPUEmbeddingActivations": 1,
        "SendTPUEmbeddingGradients": 1,
    },
    # For each table.
    "V2": {
        "ConvertToSparseCoreCsrWrappedCooTensor": 2,
        "XlaSparseDenseMatmulWithStaticBufferSize": 2,
        "XlaSparseDenseMatmulGradWithAdamAndStaticBufferSize": 2,
    },
}


@pytest.mark.parametrize(
    ("feature", "objective"),
    [
        ("V1", "softmax"),
        ("V2", "cross_entropy"),
        pytest.param("V1", "cross_entropy", marks=pytest.mark.slow),
        pytest.param("V2", "softmax", marks=pytest.mark.slow),
        pytest.param("UNSUPPORTED", "cross_entropy", marks=pytest.mark.slow),
        pytest.param("UNSUPPORTED", "softmax", marks=pytest.mark.slow),
    ],
)
def test_the_step_that_keras_traces(
    feature: str, objective: str, dataset: Dataset, config: TrainerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config.model_copy(update={"objective": objective, "softmax": SOFTMAX})
    config = with_automatic_values(config, dataset)
    with monkeypatch.context() as patch:
        # Up to the first step only: its own operations are TensorFlow's.
        Engine().install(patch)
        strategy = stub_strategy(feature)
        model = compiled_model(dataset, config, strategy)
    batches = strategy.distribute_datasets_from_function(
        lambda context: read_batches(
            dataset, "train", 64, shuffle=Shuffle(1, 2), context=context, static_shape=True, append=model.append
        ),
        input_options(strategy),
    )
    # One step a call, so that it is in no loop's function.
    model._configure_steps_per_execution(1)
    model.make_train_function()
    graph = model.train_tf_function.get_concrete_function(iter(batches)).graph
    types = Counter(operation.type for operation in graph.get_operations())
    assert {name: types[name] for name in OPERATIONS[feature]} == OPERATIONS[feature]
    # XLA knows the shape of all that it computes.
    unknown = [
        (operation.type, operation.name, output.shape)
        for operation in graph.get_operations()
        for output in operation.outputs
        if on_the_cores(operation) and not output.shape.is_fully_defined()
    ]
    assert not unknown


def on_the_cores(operation: tf.Operation) -> bool:
    """Returns True for an operation that is compiled for the TPU's cores, and is not one of the host's."""
    attributes = operation.node_def.attr
    return "_tpu_replicate" in attributes and "_xla_outside_compilation" not in attributes


@pytest.mark.parametrize("objective", [pytest.param("cross_entropy", marks=pytest.mark.slow), "softmax"])
def test_xla_compiles_loss_and_gradient(objective: str, dataset: Dataset, config: TrainerConfig) -> None:
    config = config.model_copy(update={"objective": objective, "softmax": SOFTMAX})
    config = with_automatic_values(config, dataset)
    model = build_model(dataset, config, tf.distribute.get_strategy())
    (batch,) = read_batches(dataset, "train", 64, shuffle=Shuffle(1, 2), static_shape=True, append=model.append).take(1)

    def loss(inputs: object) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            value = model.compute_loss(inputs, training=True)
        gradients = tape.gradient(value, [*model.tables.values(), model.bias])
        return value, [tf.convert_to_tensor(gradient) for gradient in gradients]

    plain, compiled = (tf.function(loss, jit_compile=jit)(batch) for jit in (False, True))
    for one, other in zip(tf.nest.flatten(plain), tf.nest.flatten(compiled), strict=True):
        tf.debugging.assert_near(one, other, atol=1e-5)
