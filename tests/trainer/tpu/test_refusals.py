"""TensorFlow refuses these on a TPU, and the trainer does not do them.

The embeddings, the strategy and the refusals are TensorFlow's own, see `stub`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs
from tensorflow.python.distribute.input_lib import InputWorkers

from pipeline.manifest import DotbiasError
from tests.trainer.tpu.stub import Engine, stub_strategy
from trainer.build import build_model, compiled_model
from trainer.config import OptimizerConfig, SoftmaxConfig, TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.reader import Shuffle, read_batches
from trainer.devices.tpu import check_batch, input_options
from trainer.loop.defaults import with_automatic_values
from trainer.loop.evaluate import evaluation_batches
from trainer.model.dot_bias import DotBias
from trainer.model.optimizers import make_embedding_optimizer, make_optimizer
from trainer.model.tables import feature_configs

ROWS = {"userId": 32, "movieId": 28}


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()
    engine.install(monkeypatch)
    return engine


@pytest.fixture
def options(config: TrainerConfig, dataset: Dataset) -> TrainerConfig:
    """The configuration, with batches of 64 rows."""
    return with_automatic_values(config, dataset)


def ids(rows: int, item_rows: int | None = None) -> dict[str, tf.Tensor]:
    return {"userId": tf.zeros([rows], tf.int32), "movieId": tf.zeros([item_rows or rows], tf.int32)}


def look_up(model: DotBias, features: Mapping[str, Any], device: str) -> None:
    """Trace a look-up of features that lie on a device."""

    @tf.function
    def traced() -> None:
        with tf.device(device):
            moved = {name: tf.identity(values) for name, values in features.items()}
        model.embedding._tpu_embedding.enqueue(moved, training=True)

    traced.get_concrete_function()


# 1. Tables on a TPU cannot be read. The trainer reads them from a checkpoint: test_weights.py, test_fitting.py.


@pytest.mark.parametrize(("feature", "error"), [("V1", RuntimeError), ("V2", AttributeError)])
def test_tables_cannot_be_read(feature: str, error: type[Exception], dataset: Dataset, options: TrainerConfig) -> None:
    model = compiled_model(dataset, options, stub_strategy(feature))
    with pytest.raises(error, match=r"Unable to retrieve embedding tables|'str' object has no attribute 'name'"):
        _ = model.tables


# 2. Ids have to be on the host.


def test_input_has_to_stay_on_the_host(dataset: Dataset, options: TrainerConfig) -> None:
    strategy = stub_strategy("V1")
    model = compiled_model(dataset, options, strategy)

    def device_of_input(options: tf.distribute.InputOptions | None) -> str:
        workers: InputWorkers = strategy.extended._get_input_workers(options)
        return workers.compute_devices_for_worker(0)[0]

    with pytest.raises(ValueError, match="must be placed on the CPU"):
        look_up(model, ids(32), device_of_input(None))
    look_up(model, ids(32), device_of_input(input_options(strategy)))
    assert input_options(tf.distribute.get_strategy()) is None


# 3. All batches have one shape.


def test_a_batch_of_another_shape(dataset: Dataset, options: TrainerConfig) -> None:
    strategy = stub_strategy("V1")
    model = compiled_model(dataset, options, strategy)
    host = build_model(dataset, options, tf.distribute.get_strategy())
    host.compile()
    look_up(model, ids(32), "/cpu:0")
    for rows in (31, 64, 1 << 16):
        with pytest.raises(ValueError, match="Inconsistent shape"):
            look_up(model, ids(rows), "/cpu:0")
    # Those of an evaluation, which is why the host makes it.
    evaluation, _ = evaluation_batches(host, dataset, "eval")
    assert evaluation.element_spec[0]["userId"].shape.as_list() == [None]


@pytest.mark.parametrize("objective", ["cross_entropy", "softmax"])
def test_train_batches_have_the_shape_of_the_tables(objective: str, dataset: Dataset, options: TrainerConfig) -> None:
    softmax = SoftmaxConfig(candidates=16, in_batch=8, temperature=0.1)
    options = options.model_copy(update={"objective": objective, "softmax": softmax})
    strategy = stub_strategy("V2")
    model = compiled_model(dataset, options, strategy)
    batches = strategy.distribute_datasets_from_function(
        lambda context: read_batches(
            dataset, "train", 64, shuffle=Shuffle(1, 2), context=context, static_shape=True, append=model.append
        ),
        input_options(strategy),
    )
    features, label, weight = batches.element_spec
    expected = {of.name: of.output_shape for of in tf.nest.flatten(model.embedding._feature_config)}
    assert expected == {"userId": [32], "movieId": [48 if objective == "softmax" else 32]}
    for spec, shape in [*((features[name], shape) for name, shape in expected.items()), (label, [32]), (weight, [32])]:
        assert [part.shape.as_list() for part in spec._component_specs] == [shape, shape]
    # 550 rows: the last batch of an epoch is filled up.
    sizes = {tuple(part.shape) for batch in batches for part in strategy.experimental_local_results(batch[1])}
    assert sizes == {(32,)}


# 4. One embedding a process. A refit has a process of its own: test_process.py, test_fitting.py.


def test_a_second_embedding_in_the_process(dataset: Dataset, options: TrainerConfig, engine: Engine) -> None:
    strategy = stub_strategy("V1")
    compiled_model(dataset, options, strategy)
    with pytest.raises(RuntimeError, match="TPU is already initialized for embeddings"):
        compiled_model(dataset, options, strategy)
    # A model on the host beside it is no second one.
    host = build_model(dataset, options, tf.distribute.get_strategy())
    assert set(host.tables) == set(ROWS)


# 5. SparseCores have to know the shape beforehand.


def test_a_sparse_core_wants_the_shape(dataset: Dataset, options: TrainerConfig) -> None:
    strategy = stub_strategy("V2")
    optimizer = make_embedding_optimizer(options.optimizer, strategy)
    with strategy.scope(), pytest.raises(ValueError, match="shape with unknown rank"):
        tf.tpu.experimental.embedding.TPUEmbeddingV2(feature_configs(ROWS, options), optimizer)
    embedding = compiled_model(dataset, options, strategy).embedding._tpu_embedding
    # Tables by their own names, and room for all ids of a SparseCore.
    assert set(embedding.embedding_tables) == set(ROWS)
    assert embedding._table_to_max_ids_per_sparse_core == {"userId": 8, "movieId": 8}
    assert embedding._table_to_max_unique_ids_per_sparse_core == {"userId": 8, "movieId": 8}


# 6. Ids have to be the input itself, so tokens are hashed where batches are read.


def test_ids_that_are_computed_in_the_step(dataset: Dataset, options: TrainerConfig) -> None:
    strategy = stub_strategy("V1")
    model = compiled_model(dataset, options, strategy)

    def trace(change: int) -> None:
        def step(features: dict[str, tf.Tensor]) -> None:
            model.embedding({name: values + change if change else values for name, values in features.items()})

        @tf.function
        def run() -> None:
            strategy.run(step, (ids(32),))

        run.get_concrete_function()

    with pytest.raises(ValueError, match="_tpu_input_identity"):
        trace(1)
    trace(0)


# 7. Tables have an optimizer of the TPU's own.


@pytest.mark.parametrize("name", ["lazy_adam", "adam", "adagrad", "sgd"])
def test_the_optimizer_of_the_tables(name: Any, options: TrainerConfig, dataset: Dataset) -> None:
    options = options.model_copy(update={"optimizer": OptimizerConfig(name=name, learning_rate=0.1)})
    strategy = stub_strategy("V1")
    if name == "lazy_adam":
        with strategy.scope(), pytest.raises(ValueError, match="Keras optimizer LazyAdam is unsupported"):
            tfrs.layers.embedding.TPUEmbedding(
                feature_configs(ROWS, options), optimizer=make_optimizer(options.optimizer)
            )
    model = compiled_model(dataset, options, strategy)
    assert {type(table.optimizer).__name__.lower() for table in model.embedding._tpu_embedding._table_config} == {
        name.removeprefix("lazy_")
    }
    assert {variable.name for variable in model.trainable_variables} == {"tpu_embedding_helper_dummy:0", "bias:0"}


@pytest.mark.parametrize(
    ("rows", "candidates", "message"),
    [
        (1024, 0, None),
        (1024, 512, None),
        (1000, 0, "`trainer.batch_size` should be a multiple of 64"),
        (1024, 500, "`trainer.softmax.candidates` should be a multiple of 8"),
    ],
)
def test_what_a_replica_gets_can_be_shared(rows: int, candidates: int, message: str | None) -> None:
    strategy = stub_strategy("V2", cores=8)
    if message is None:
        check_batch(rows, candidates, strategy)
        return
    with pytest.raises(DotbiasError, match=message):
        check_batch(rows, candidates, strategy)
