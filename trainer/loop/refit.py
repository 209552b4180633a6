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


def refit_config(config: TrainerConfig, data: Dataset, everything: Dataset) -> TrainerConfig:
    """Return the configuration for more rows: a period is the same part of an epoch.

    `data` is the dataset of the configuration, `everything` that of the refit.
    """
    if config.evaluate_every_rows is None:
        return config
    rows = config.evaluate_every_rows * everything.split("train").rows / data.split("train").rows
    return config.model_copy(update={"evaluate_every_rows": round(rows)})
