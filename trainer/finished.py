"""Finds the result of a finished training, without TensorFlow where all files are local."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pipeline.manifest import join
from trainer.config import CHECKPOINT_DIRECTORY, TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.files import delete_tree
from trainer.loop.defaults import with_automatic_values
from trainer.loop.refit import REFIT_DIRECTORY
from trainer.output.result import check_same_training, read_result

if TYPE_CHECKING:
    from trainer.loop.warm_start import WarmStart

_log = logging.getLogger("trainer.train")


def is_complete(dataset: str, model_dir: str, config: TrainerConfig, start: WarmStart | None = None) -> bool:
    """Return whether `train` with these arguments would find its work done.

    Raises:
        DotbiasError: the directory holds a finished model of another configuration, dataset or start.
    """
    return finished_result(Dataset.open(dataset, config), model_dir, config, start) is not None


def finished_result(
    data: Dataset, model_dir: str, config: TrainerConfig, start: WarmStart | None = None
) -> dict[str, Any] | None:
    """Return the metrics of a finished training, None if there is none; raise `DotbiasError` if it is another one."""
    result = read_result(model_dir)
    if result is None:
        return None
    complete = with_automatic_values(config, data)
    check_same_training(model_dir, result, data, complete, None if start is None else fingerprint_of(start))
    return result


def fingerprint_of(start: WarmStart) -> str | None:
    """Return the fingerprint of a finished training; None if it is not finished."""
    result = read_result(start.model_dir)
    return None if result is None else result.get("fingerprint")


def delete_checkpoints(model_dir: str) -> None:
    """Delete the checkpoints of a finished training; a failure is only a warning."""
    for directory in (model_dir, join(model_dir, REFIT_DIRECTORY)):
        path = join(directory, CHECKPOINT_DIRECTORY)
        try:
            delete_tree(path)
        except OSError as error:
            _log.warning("The checkpoints in %s stay (%s); delete them to free the disk.", path, error)
