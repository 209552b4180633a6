"""Defines the request for an evaluation, and finds the export to measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dotbias.evaluation.results import EVALUATION_DIRECTORY
from pipeline.config import InputConfig
from pipeline.manifest import DotbiasError, InputFile, join
from trainer.data.files import exists
from trainer.output.result import EXPORT_BEFORE_REFIT_DIRECTORY, EXPORT_DIRECTORY, read_result


class EmptySampleError(DotbiasError):
    """Says that the sample of users that a request asks for has no rows."""


@dataclass(frozen=True)
class EvaluationRequest:
    """Names the model and the rows of an evaluation.

    `run` is a directory with `dataset` and `model`. `split` is a split of the dataset; None means the new files that
    `input` names, in its format and with the columns of the dataset. `export` is None for the export of the run.
    `other_export` is a second model whose lists are compared, None for none. `share` is that of the users who are
    measured, in (0, 1]; below 1 they are a random sample.
    """

    run: str
    split: Literal["train", "eval"] | None
    input: InputConfig
    export: str | None = None
    other_export: str | None = None
    share: float = 1.0

    @property
    def dataset(self) -> str:
        return join(self.run, "dataset")

    def export_directory(self) -> str:
        """Returns the named export or that of the run; for eval rows, the one from before the refit if there is one."""
        if self.export is not None:
            return self.export
        before = join(self.run, "model", EXPORT_BEFORE_REFIT_DIRECTORY)
        # Earlier versions did not keep it.
        if self.split == "eval" and is_before_refit(before) and exists(before):
            return before
        return join(self.run, "model", EXPORT_DIRECTORY)

    def directory(self, files: Sequence[InputFile], export_fingerprint: str) -> str:
        """Returns the directory of the results: one for each split or first file, and for each other export."""
        name = self.split or f"input-{files[0].path.rpartition('/')[2].split('.')[0]}"
        return join(self.run, EVALUATION_DIRECTORY, name + (f"-{export_fingerprint[:8]}" if self.export else ""))


def training_of(export: str) -> dict[str, Any] | None:
    """Reads the `metrics.json` beside an export; None if the export was copied without it."""
    return read_result(export.rstrip("/").rpartition("/")[0] or ".")


def objective_of(export: str, *, has_labels: bool) -> Literal["cross_entropy", "softmax"]:
    """Reads what the model was trained for; without its `metrics.json`, what would be the choice for such rows."""
    training = training_of(export) or {}
    objective = training.get("config", {}).get("objective", "auto")
    if objective in ("cross_entropy", "softmax"):
        return "softmax" if objective == "softmax" else "cross_entropy"
    return "cross_entropy" if has_labels else "softmax"


def is_before_refit(export: str) -> bool:
    """Returns whether an export is from before a refit, and so was not trained on the eval rows."""
    training = training_of(export)
    named = export.rstrip("/").rpartition("/")[2] == EXPORT_BEFORE_REFIT_DIRECTORY
    return named and training is not None and training["train"]["refit"] is not None
