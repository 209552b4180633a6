"""Changes the model that serves: publishes an export for TensorFlow Serving, rolls back, pins."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from datetime import date
from typing import Any

import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from dotbias.retraining.champion import Champion, Throne
from dotbias.retraining.decision import Decision
from dotbias.retraining.runs import RunPaths, dated_runs
from pipeline.manifest import DatasetManifest, DotbiasError, join, read_manifest
from pipeline.storage.files import open_file, read_file
from pipeline.storage.trees import copy_tree, exists, list_directories

SERVING_DIRECTORY = "serving"
# TensorFlow Serving loads a version once this file is there, so it is written last.
_SAVED_MODEL = "saved_model.pb"
_WARM_UP = "assets.extra/tf_serving_warmup_requests"
# A rollback publishes a former model again under a higher number, since TensorFlow Serving takes the highest.
_VERSIONS_A_DAY = 100
# The value of `decided_by` in `champion.json` after a rollback.
ROLLBACK = "rollback"


def version_of(day: date) -> int:
    """Returns the first version of a date; versions rise with the date.

    >>> version_of(date(2026, 11, 24))
    2026112400
    """
    return int(day.strftime("%Y%m%d")) * _VERSIONS_A_DAY


def version_after(champion: Champion) -> int:
    """Returns the version under which a former model is published again.

    Raises:
        DotbiasError: the date of the champion has no number left.
    """
    version = champion.version + 1
    if version % _VERSIONS_A_DAY == 0:
        raise DotbiasError(
            f"Version {champion.version} is the last one of its date, which allows {_VERSIONS_A_DAY - 1} rollbacks. "
            "Retrain another date."
        )
    return version


def publish(root: str, export: str, version: int, manifest: DatasetManifest, dataset: str) -> str:
    """Makes `serving/<version>/` of an export, with a warm-up request; returns its path.

    Nothing happens if it is there already and complete.

    Args:
        root: the output root.
        export: a SavedModel.
        version: a directory name that TensorFlow Serving takes for a version.
        manifest: of the dataset that the model was trained on.
        dataset: its directory, for a known token of each feature.
    """
    target = join(root, SERVING_DIRECTORY, str(version))
    if not exists(join(target, _SAVED_MODEL)):
        copy_tree(export, target, last=_SAVED_MODEL, more={_WARM_UP: warm_up_requests(manifest, dataset)})
    return target


def published_versions(root: str) -> list[int]:
    """Returns the versions in `serving/`, the lowest first."""
    return sorted(int(name) for name in list_directories(join(root, SERVING_DIRECTORY)) if name.isdecimal())


def roll_back(root: str, run_id: str | None) -> Champion:
    """Publishes a former champion again, under a version above the current one, and makes it the champion.

    Args:
        root: the output root.
        run_id: a run that was champion; None for the predecessor of the current one.

    Raises:
        DotbiasError: there is no such run, it never was champion, its model is gone, or the champion changed meanwhile.
    """
    throne = Throne(root)
    champion, seen = throne.read()
    if champion is None:
        raise DotbiasError(f"{throne.path} does not exist, so there is no champion to roll back.")
    if run_id is None:
        if champion.previous is None:
            raise DotbiasError(f"The champion {champion.run_id} has no predecessor. Name a run with --to.")
        run_id = champion.previous.run_id
    if run_id == champion.run_id:
        raise DotbiasError(f"{run_id} is the champion already.")
    paths = RunPaths(root, run_id)
    if not _was_champion(paths):
        former = [name for name in dated_runs(root) if _was_champion(RunPaths(root, name))]
        raise DotbiasError(f"{run_id} never was champion. Former champions: {', '.join(former) or 'none'}.")
    export = join(paths.model, "export")
    version = version_after(champion)
    publish(root, export, version, read_manifest(paths.dataset, open_file), paths.dataset)
    previous = champion.model_copy(update={"previous": None, "pinned": False})
    back = Champion(run_id=run_id, version=version, decided_by=ROLLBACK, pinned=champion.pinned, previous=previous)
    if not throne.replace(seen, back):
        raise DotbiasError("Another command changed the champion at the same time. Look at it, then try again.")
    return back


def pin(root: str, pinned: bool) -> Champion:
    """Pins the champion, so that no run takes its place, or releases it.

    Raises:
        DotbiasError: there is no champion, or it changed meanwhile.
    """
    throne = Throne(root)
    champion, seen = throne.read()
    if champion is None:
        raise DotbiasError(f"{throne.path} does not exist, so there is no champion to pin.")
    changed = champion.model_copy(update={"pinned": pinned})
    if not throne.replace(seen, changed):
        raise DotbiasError("Another command changed the champion at the same time. Look at it, then try again.")
    return changed


def _was_champion(paths: RunPaths) -> bool:
    return (
        exists(paths.decision) and Decision.from_json(read_file(paths.decision), paths.decision).outcome == "promoted"
    )


def warm_up_requests(manifest: DatasetManifest, dataset: str) -> bytes:
    """Returns the file from which TensorFlow Serving sends a first request before a version answers anyone.

    It holds a `tensorflow.serving.PredictionLog` for `serving_default` with one row, of the most frequent token of each
    feature.
    """
    log = _prediction_log()()
    request = log.predict_log.request
    request.model_spec.signature_name = "serving_default"
    for name, feature in manifest.features.items():
        token: Any = 0 if feature.token_dtype == "int64" else ""
        if feature.vocabulary_path is not None and feature.vocabulary_size:
            token = read_file(join(dataset, feature.vocabulary_path)).split(b"\n", 1)[0].decode()
        value = int(token) if feature.token_dtype == "int64" else token
        request.inputs[name].CopyFrom(tf.make_tensor_proto([value], feature.token_dtype))
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "requests")
        with tf.io.TFRecordWriter(path) as writer:
            writer.write(log.SerializeToString(deterministic=True))
        with open(path, "rb") as file:
            return file.read()


def _prediction_log() -> type[Any]:
    """Builds the part of TensorFlow Serving's messages that a request needs, with the numbers of its .proto files.

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
