"""What is asked of an evaluation, and which exported model answers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf

from dotbias.evaluation.results import EVALUATION_DIRECTORY
from pipeline.config import InputConfig
from pipeline.manifest import InputFile, join
from trainer.output.result import read_result
from trainer.train import EXPORT_BEFORE_REFIT_DIRECTORY, EXPORT_DIRECTORY


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate on what.

    `run` is a directory with `dataset` and `model`. `split` is one of the dataset's; None: new files, those that
    `input` names, in the format that it says and with the columns of the dataset. `export` is None for the run's own.
    """

    run: str
    split: Literal["train", "eval"] | None
    input: InputConfig
    export: str | None = None

    @property
    def dataset(self) -> str:
        return join(self.run, "dataset")

    def export_directory(self) -> str:
        """The one that is named, or the run's own: for eval rows, which a refit has trained on, that from before it."""
        if self.export is not None:
            return self.export
        before = join(self.run, "model", EXPORT_BEFORE_REFIT_DIRECTORY)
        # A version that did not leave it may have trained the run.
        if self.split == "eval" and is_before_refit(before) and tf.io.gfile.exists(before):
            return before
        return join(self.run, "model", EXPORT_DIRECTORY)

    def directory(self, files: Sequence[InputFile], export_fingerprint: str) -> str:
        """Where the answer goes: a directory for each split or first file, and for each export but the run's own."""
        name = self.split or f"input-{files[0].path.rpartition('/')[2].split('.')[0]}"
        return join(self.run, EVALUATION_DIRECTORY, name + (f"-{export_fingerprint[:8]}" if self.export else ""))


def training_of(export: str) -> dict[str, Any] | None:
    """`metrics.json` of the training that left an export; None beside one that was copied alone."""
    return read_result(export.rstrip("/").rpartition("/")[0] or ".")


def is_before_refit(export: str) -> bool:
    """Whether it has not been trained on eval rows, though what its training left to be served has."""
    training = training_of(export)
    named = export.rstrip("/").rpartition("/")[2] == EXPORT_BEFORE_REFIT_DIRECTORY
    return named and training is not None and training["train"]["refit"] is not None
