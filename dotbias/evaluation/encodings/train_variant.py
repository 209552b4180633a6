"""Trains one variant of a comparison and measures it on the eval rows, through its export."""

from __future__ import annotations

import gc
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from pydantic import ValidationError

from dotbias.evaluation.encodings.collisions import measure_encodings
from dotbias.evaluation.encodings.comparison import MeasuredVariant
from dotbias.evaluation.encodings.variants import Variant
from dotbias.evaluation.exported.client import Export
from dotbias.evaluation.rows import Rows
from pipeline.manifest import Progress, fingerprint, join
from trainer.data.dataset import Dataset
from trainer.data.files import write_text
from trainer.devices.memory import table_and_slot_bytes
from trainer.loop.defaults import with_automatic_values
from trainer.loop.saved_state import STATE_DIRECTORY
from trainer.output.result import EXPORT_DIRECTORY, training_fingerprint
from trainer.train import train

MODEL_DIRECTORY = "model"
PROBABILITIES_NAME = "probabilities.npy"
RESULT_NAME = "variant.json"
_log = logging.getLogger("trainer.train")


def train_variant(
    directory: str,
    dataset: str,
    variant: Variant,
    preprocess_seconds: float,
    tokens: Dataset,
    train_rows: Rows,
    eval_rows: Rows,
    progress: Progress,
) -> tuple[MeasuredVariant, npt.NDArray[np.float32]]:
    """Trains and measures a variant, unless that is done; returns the measurements and P(positive) of the eval rows.

    An interrupted training continues from its checkpoint. Checkpoints are deleted at the end, since those of all
    variants would take several times as much space as the models.

    Args:
        directory: directory of the variant, local.
        dataset: directory of the dataset to train on.
        variant: the options.
        preprocess_seconds: how long making the dataset took.
        tokens: the dataset with the same rows whose shards hold the ids themselves.
        train_rows: train rows of `tokens`.
        eval_rows: eval rows of `tokens`, with the same codes.
        progress: called with the stages of training, and `predict`.

    Raises:
        DotbiasError: the directory holds a model of another configuration or dataset, or training failed.
        Interrupted: Ctrl-C or SIGTERM; the same call continues later.
    """
    data = Dataset.open(dataset, variant.trainer)
    config = with_automatic_values(variant.trainer, data)
    identity = fingerprint({"run": training_fingerprint(data, config), "tokens": tokens.fingerprint})
    done = _finished(directory, identity)
    if done is not None:
        return done, np.load(join(directory, PROBABILITIES_NAME))
    model_dir = join(directory, MODEL_DIRECTORY)
    metrics = train(dataset, model_dir, variant.trainer, progress)
    export = join(model_dir, EXPORT_DIRECTORY)
    probabilities = Export(export, tokens.manifest).probabilities(eval_rows, progress)
    table_bytes, slot_bytes = table_and_slot_bytes(data.table_rows, config)
    measured = MeasuredVariant(
        name=variant.name,
        title=variant.title,
        kind=variant.kind,
        fingerprint=identity,
        features=measure_encodings(data, train_rows),
        table_bytes=table_bytes,
        slot_bytes=slot_bytes,
        served_bytes=sum(path.stat().st_size for path in Path(export).rglob("*") if path.is_file()),
        preprocess_seconds=preprocess_seconds,
        train_seconds=sum(epoch["seconds"] for epoch in metrics["train"]["epochs"]),
        epochs=metrics["train"]["epochs"][-1]["epoch"],
        best_epoch=metrics["train"]["best_epoch"],
    )
    np.save(join(directory, PROBABILITIES_NAME), probabilities)
    write_text(join(directory, RESULT_NAME), measured.model_dump_json(indent=2) + "\n")
    shutil.rmtree(join(model_dir, STATE_DIRECTORY), ignore_errors=True)
    # Frees memory for the next model, which is as large.
    tf.keras.backend.clear_session()
    gc.collect()
    return measured, probabilities


def _finished(directory: str, identity: str) -> MeasuredVariant | None:
    """Reads the measurements of an earlier start; None if there are none, or they are of other options."""
    path = join(directory, RESULT_NAME)
    if not os.path.exists(path):
        return None
    try:
        measured = MeasuredVariant.model_validate_json(Path(path).read_text())
    except ValidationError as error:
        _log.warning(
            "%s cannot be read (%s). Training and measuring the variant again.", path, error.errors()[0]["msg"]
        )
        return None
    return measured if measured.fingerprint == identity else None
