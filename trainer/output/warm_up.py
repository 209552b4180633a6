"""Makes the requests that TensorFlow Serving sends to a version before it lets clients ask it.

The first call of a signature takes many times as long as later ones. Each record of the file is a
`tensorflow.serving.PredictionLog` with a request to one signature.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# Beside `saved_model.pb`; the name is TensorFlow Serving's.
WARM_UP_PATH = "assets.extra/tf_serving_warmup_requests"
# A length of lists that a client may ask for.
_K = 10


def example_requests(
    signatures: Iterable[str], users: Mapping[str, Any], items: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return the inputs of a request to each signature, by name.

    Args:
        signatures: names of those that the export has.
        users: a token of each feature of the user side, by name.
        items: the same of the item side; the first names the item.
    """
    item = next(iter(items.values()))
    nothing = "" if isinstance(item, str) else -1
    pair = {name: [token] for name, token in {**users, **items}.items()}
    user = {name: [token] for name, token in users.items()}
    requests: dict[str, dict[str, Any]] = {
        "serving_default": pair,
        "user_vector": user,
        "item_vector": {"item": [item]},
        "recommend": {**user, "exclude": [[nothing]], "k": _K},
        "recommend_for_items": {"items": [[item]], "exclude": [[nothing]], "k": _K},
        "similar_items": {"item": [item], "k": _K},
    }
    return {name: requests[name] for name in sorted(signatures)}


def write_warm_up_requests(path: str, requests: Mapping[str, Mapping[str, Any]], specs: Mapping[str, Any]) -> None:
    """Write a record for each signature; `specs` has the `tf.TensorSpec`s of its inputs, by name."""
    with tf.io.TFRecordWriter(path) as writer:
        for signature, inputs in requests.items():
            log = prediction_log()()
            request = log.predict_log.request
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value, specs[signature][name].dtype))
            writer.write(log.SerializeToString(deterministic=True))


def prediction_log() -> type[Any]:
    """Build the part of TensorFlow Serving's messages that a request needs, with the numbers of its .proto files.

    The package with the whole of them is pinned to one version of TensorFlow.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="dotbias/warm_up.proto", package="dotbias.serving", syntax="proto3")
    file.dependency.append("tensorflow/core/framework/tensor.proto")

    def message(name: str, fields: Mapping[str, tuple[int, str | None]]) -> descriptor_pb2.DescriptorProto:
        made = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            added = made.field.add(name=field_name, number=number, label=field.LABEL_OPTIONAL)
            added.type = field.TYPE_STRING if kind is None else field.TYPE_MESSAGE
            if kind is not None:
                added.type_name = kind
        return made

    message("ModelSpec", {"name": (1, None), "signature_name": (3, None)})
    request = message("PredictRequest", {"model_spec": (1, ".dotbias.serving.ModelSpec")})
    entry = request.nested_type.add(name="InputsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    entry.field.add(
        name="value",
        number=2,
        type=field.TYPE_MESSAGE,
        type_name=".tensorflow.TensorProto",
        label=field.LABEL_OPTIONAL,
    )
    request.field.add(
        name="inputs",
        number=2,
        type=field.TYPE_MESSAGE,
        type_name=".dotbias.serving.PredictRequest.InputsEntry",
        label=field.LABEL_REPEATED,
    )
    message("PredictLog", {"request": (1, ".dotbias.serving.PredictRequest")})
    message("PredictionLog", {"predict_log": (6, ".dotbias.serving.PredictLog")})
    pool = descriptor_pool.Default()
    try:
        found = pool.FindMessageTypeByName("dotbias.serving.PredictionLog")
    except KeyError:
        pool.Add(file)
        found = pool.FindMessageTypeByName("dotbias.serving.PredictionLog")
    made: type[Any] = message_factory.GetMessageClass(found)
    return made
