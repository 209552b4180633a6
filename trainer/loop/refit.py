"""Prepares the training on all rows; early stopping needs rows that are not trained on, the final model does not."""

from __future__ import annotations

from dataclasses import replace

from pipeline.manifest import Split
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset

REFIT_DIRECTORY = "refit"


def with_eval_rows(data: Dataset) -> Dataset:
    """Return the dataset with the eval rows among the train rows, and none left in `eval`.

    Vocabularies and the counts of their ids stay those of the train rows.
    """
    train, evaluation = data.split("train"), data.split("eval")
    rows = train.rows + evaluation.rows
    labels = sum(split.rows * (split.label_mean or 0.0) for split in (train, evaluation))
    splits = {
        "train": Split(
            rows=rows,
            positive_rows=train.positive_rows + evaluation.positive_rows,
            label_mean=labels / rows,
            shards=[*train.shards, *evaluation.shards],
        ),
        "eval": Split(rows=0, positive_rows=0, label_mean=None, shards=[]),
    }
    return replace(data, manifest=data.manifest.model_copy(update={"splits": splits}))


def refit_config(config: TrainerConfig, best_epoch: int) -> TrainerConfig:
    """Return the configuration with as many epochs as were best for the eval split; with 0, nothing is trained."""
    return config.model_copy(update={"epochs": best_epoch})
