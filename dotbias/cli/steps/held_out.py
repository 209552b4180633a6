"""The AUC of an exported model on rows that nothing else was done with."""

from __future__ import annotations

from dotbias.cli.console.progress import ProgressDisplay
from pipeline.config import PipelineConfig
from pipeline.manifest import DatasetManifest


def held_out_auc(
    export: str, path: str, config: PipelineConfig, manifest: DatasetManifest, progress: ProgressDisplay
) -> float:
    """Predicts as a server would, from raw tokens.

    Args:
        export: a directory with the SavedModel.
        path: a file that is written as the input of the job is.
        config: of the job.
        manifest: of the dataset that the model was trained on.
        progress: of the stages `read` and `predict`.
    """
    from dotbias.evaluation.exported.client import Export
    from dotbias.evaluation.measure.metrics import auc
    from dotbias.evaluation.rows import read_files
    from pipeline.input.matching import match_input

    rows = read_files(match_input([path]), config, manifest, {}, progress)
    probability = Export(export, manifest).probabilities(rows, progress)
    return auc(probability, rows.positive(manifest.label.positive_at))
