"""Finds an evaluation that an earlier start made, without TensorFlow where all files are local."""

from __future__ import annotations

from typing import NamedTuple

from dotbias.evaluation.exported.fingerprint import export_fingerprint
from dotbias.evaluation.request import EvaluationRequest
from dotbias.evaluation.results import EVALUATION_NAME, FORMAT_VERSION, Evaluation
from pipeline.manifest import DatasetManifest, DotbiasError, InputFile, fingerprint, join, read_manifest, tool_versions
from pipeline.storage.matching import match_input
from trainer.data.dataset import Dataset
from trainer.data.files import exists, open_file, read_bytes


class StoredEvaluation(NamedTuple):
    """Holds an evaluation and its directory; `reused` if an earlier start made it."""

    directory: str
    evaluation: Evaluation
    reused: bool


class Wanted(NamedTuple):
    """Describes the evaluation that a request asks for.

    `files` are the new files, `export` the directory of the model. `depends_on` identifies all that the result depends
    on, except for the `share` of the users. `directory` is where it belongs.
    """

    data: Dataset
    files: list[InputFile]
    export: str
    export_fingerprint: str
    depends_on: str
    directory: str
    share: float

    @property
    def manifest(self) -> DatasetManifest:
        return self.data.manifest

    def fingerprint(self, share: float) -> str:
        """Identifies the evaluation of a share of the users."""
        return self.depends_on if share == 1 else fingerprint([self.depends_on, share])


def wanted(request: EvaluationRequest) -> Wanted:
    """Reads what the request names.

    Raises:
        DotbiasError: dataset, export or files are missing.
    """
    manifest = read_manifest(request.dataset, open_file)
    data = Dataset(request.dataset, manifest, {})
    files = match_input(request.input.patterns) if request.split is None else []
    export = request.export_directory()
    of_export = export_fingerprint(export)
    depends_on = fingerprint(
        {
            "format_version": FORMAT_VERSION,
            "dataset": data.fingerprint,
            "export": of_export,
            "other_export": None if request.other_export is None else export_fingerprint(request.other_export),
            "split": request.split,
            "files": [file.model_dump(mode="json") for file in files],
            "input": request.input.model_dump(mode="json", exclude={"patterns"}) if files else None,
            "versions": tool_versions(),
        }
    )
    return Wanted(data, files, export, of_export, depends_on, request.directory(files, of_export), request.share)


def stored_evaluation(of: Wanted, *, any_share: bool = False) -> StoredEvaluation | None:
    """Returns the evaluation that is there already, None if there is none of the same model and rows.

    With `any_share`, it may be of another share of the users.
    """
    there = read_evaluation(of.directory)
    if there is None:
        return None
    share = 1.0 if there.subject.sample is None else there.subject.sample.share
    if there.fingerprint != of.fingerprint(share) or not (any_share or share == of.share):
        return None
    return StoredEvaluation(of.directory, there, reused=True)


def read_evaluation(directory: str) -> Evaluation | None:
    """Reads the evaluation in a directory; None if there is none that this version can read."""
    path = join(directory, EVALUATION_NAME)
    if not exists(path):
        return None
    try:
        return Evaluation.from_json(read_bytes(path).decode(), path)
    except DotbiasError:
        return None
