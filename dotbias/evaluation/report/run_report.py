"""Writes the report of a run, from the files that its stages have left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from pydantic import ValidationError

from dotbias.evaluation.exported.tables import read_embeddings
from dotbias.evaluation.question import training_of
from dotbias.evaluation.report.report import Contents, report
from dotbias.evaluation.results import Evaluation
from pipeline.manifest import join, read_manifest
from trainer.config import TrainerConfig
from trainer.loop.checkpoint import write_text


def write_report(
    path: str, run: str, export: str, evaluation: Evaluation | None, titles: Mapping[str, Mapping[str, str]]
) -> None:
    """Writes the page to `path`.

    Args:
        path: of the page.
        run: the run's directory, which holds the dataset.
        export: the model; what is known of its training stands beside it.
        evaluation: of the export, None if there is none.
        titles: by token by feature.
    """
    dataset = join(run, "dataset")
    metrics = training_of(export) or {}
    contents = Contents(
        run=run.rstrip("/").rpartition("/")[2],
        manifest=read_manifest(dataset, tf.io.gfile.GFile),
        metrics=metrics,
        embeddings=read_embeddings(dataset, export, _config(metrics)),
        evaluation=evaluation,
        titles=titles,
    )
    write_text(path, report(contents))


def _config(metrics: Mapping[str, Any]) -> TrainerConfig:
    try:
        return TrainerConfig.model_validate(metrics["config"])
    except (KeyError, ValidationError):
        # Of an export that was copied alone, or that another version has trained.
        return TrainerConfig()
