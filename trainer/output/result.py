"""Reads and writes metrics.json, the result of a training; its presence means that the training is finished."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from pipeline.manifest import DotbiasError, Split, fingerprint, join
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.files import exists, open_file, write_text

METRICS_NAME = "metrics.json"
EXPORT_DIRECTORY = "export"
EXPORT_BEFORE_REFIT_DIRECTORY = "export_before_refit"
# Keys of the configuration that do not change what is trained.
_OPERATIONAL = ("cache", "checkpoint", "tune", "verify_checksums")


def training_fingerprint(data: Dataset, config: TrainerConfig, start: str | None = None) -> str:
    """Identify a training: two with the same fingerprint give the same model.

    `start` is the fingerprint of the training whose weights it starts from.
    """
    told = {"config": _relevant(config.model_dump(mode="json")), "dataset": data.fingerprint}
    return fingerprint(told if start is None else {**told, "start": start})


def read_result(model_dir: str) -> dict[str, Any] | None:
    """Read the metrics of a finished training; None if there is none in the directory."""
    path = join(model_dir, METRICS_NAME)
    if not exists(path):
        return None
    with open_file(path) as file:
        result: dict[str, Any] = json.loads(file.read())
    return result


def write_result(model_dir: str, result: dict[str, Any]) -> None:
    write_text(join(model_dir, METRICS_NAME), json.dumps(result, indent=2) + "\n")


def defined_metrics(metrics: Mapping[str, float], split: Split) -> dict[str, float | None]:
    """Replace AUC and PR-AUC by None where the labels of the split are of one class: there is nothing to rank."""
    one_class = split.positive_rows in (0, split.rows)
    return {name: None if one_class and name in ("auc", "pr-auc") else value for name, value in metrics.items()}


def check_same_training(
    model_dir: str, result: dict[str, Any], data: Dataset, config: TrainerConfig, start: str | None = None
) -> None:
    """Raise `DotbiasError` with the differences unless the result is of this configuration, dataset and start."""
    try:
        # Validated, so that a key that is newer than the result has its default.
        stored = TrainerConfig.model_validate(result["config"]).model_dump(mode="json")
    except ValidationError:
        stored = result["config"]
    different = list(_differences("trainer", _relevant(stored), _relevant(config.model_dump(mode="json"))))
    if (trained_on := result["dataset"]["fingerprint"]) != data.fingerprint:
        different.append(f"the dataset: {trained_on[:12]} -> {data.fingerprint[:12]}")
    if (started_from := (result.get("warm_start") or {}).get("from")) != start:
        different.append(f"the model to start from: {_shortened(started_from)} -> {_shortened(start)}")
    if different:
        raise DotbiasError(
            f"{model_dir} holds a finished model of another run ({'; '.join(different)}). "
            "Choose another `--run_id`, or delete the directory to train it again."
        )


def _shortened(identity: str | None) -> str:
    return "none" if identity is None else identity[:12]


def _relevant(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _OPERATIONAL}


def _differences(where: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(f"{where}.{key}", old.get(key), new.get(key))
    elif old != new:
        yield f"{where}: {old} -> {new}"
