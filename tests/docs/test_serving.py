"""Compares the requests and responses of docs/serving.md with the signatures of an export."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from tests.trainer.datasets import write_dataset
from tests.trainer.output.test_export import trained_like
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.output.export import export_model
from trainer.output.warm_up import prediction_log

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text()
BLOCKS: dict[str, str] = dict(re.findall(r'^```\w+ title="(.+?)"\n(.*?)^```', PAGE, re.MULTILINE | re.DOTALL))
SIDES = {"userId": "user", "movieId": "item"}


@pytest.fixture(scope="module")
def signatures(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Exports a model with the ids that the page names."""
    directory = tmp_path_factory.mktemp("served")
    items = sorted(set(re.findall(r"movie_\d+", PAGE)))
    rows = {"userId": ["user_000844"] * len(items), "movieId": items, "label": [1.0, 0.0] * (len(items) // 2)}
    rows = {name: values[: len(rows["label"])] for name, values in rows.items()}
    write_dataset(directory / "dataset", rows, rows, SIDES)
    config = TrainerConfig(embedding_dim=4, l2=0.0)
    data = Dataset.open(str(directory / "dataset"), config)
    export_model(trained_like(data, config), data, str(directory / "export"))
    model = tf.saved_model.load(str(directory / "export"))
    yield model.signatures


def ask(signatures: Any, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    specs = signatures[name].structured_input_signature[1]
    assert inputs.keys() == specs.keys()
    tensors = {key: tf.constant(value, specs[key].dtype) for key, value in inputs.items()}
    return {key: value.numpy() for key, value in signatures[name](**tensors).items()}


def test_the_bodies_of_a_prediction_fit_the_signature(signatures: Any) -> None:
    (inputs,) = json.loads(BLOCKS["serving_default: request"]).values()
    shown = json.loads(BLOCKS["serving_default: response"])["outputs"]
    # TensorFlow Serving leaves out the name of a single output.
    (answer,) = ask(signatures, "serving_default", inputs).values()
    assert np.shape(shown) == answer.shape
    (body,) = re.findall(r"curl -d '(.+)'", PAGE)
    for instance in json.loads(body)["instances"]:
        ask(signatures, "serving_default", {name: [token] for name, token in instance.items()})


@pytest.mark.parametrize("name", ["recommend", "recommend_for_items", "similar_items"])
def test_bodies_of_rest_fit_the_signature(signatures: Any, name: str) -> None:
    request = json.loads(BLOCKS[f"{name}: request"])
    assert request["signature_name"] == name
    answer = ask(signatures, name, request["inputs"])
    if f"{name}: response" not in BLOCKS:
        return
    shown = json.loads(BLOCKS[f"{name}: response"])["outputs"]
    assert shown.keys() == answer.keys()
    for output, values in shown.items():
        # The numbers depend on the model; shapes and types do not.
        assert np.shape(values) == answer[output].shape
        assert isinstance(values[0][0], str) == (answer[output].dtype == object)


@pytest.mark.parametrize(
    ("block", "output", "shape"), [("recommend", "items", (1, 3)), ("serving_default", "probability", (1,))]
)
def test_grpc_requests_fit_the_signature(signatures: Any, block: str, output: str, shape: tuple[int, ...]) -> None:
    log = prediction_log()()
    request = text_format.Parse(BLOCKS[f"{block}: gRPC"], log.predict_log.request)
    name = request.model_spec.signature_name
    inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
    specs = signatures[name].structured_input_signature[1]
    for key, value in request.inputs.items():
        assert value.dtype == specs[key].dtype.as_datatype_enum
    assert name == block and ask(signatures, name, inputs)[output].shape == shape


def test_the_table_names_all_signatures_with_their_inputs_and_outputs(signatures: Any) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert {"serving_default", *rows} == set(signatures)
    for name, text in rows.items():
        named = set(re.findall(r"`(\w+)`", text))
        serve = signatures[name]
        inputs = set(serve.structured_input_signature[1]) - {"userId"}
        assert inputs <= named, name
        # "the same" stands for the outputs of the row above.
        assert set(serve.structured_outputs) <= named or "the same" in text, name
