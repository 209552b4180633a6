"""Trains the model of a run, and measures the one of the sample against the true model."""

from __future__ import annotations

from pathlib import Path

from dotbias.cli.console.json_files import read_json, write_json
from dotbias.cli.console.logs import silent_imports
from dotbias.cli.console.progress import ProgressDisplay
from dotbias.cli.console.summary import HeldOutResult, RunReport
from dotbias.cli.steps.sample_data import SampleData
from pipeline.config import PipelineConfig
from pipeline.manifest import DatasetManifest, join
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.devices.cluster import worker_index
from trainer.finished import delete_checkpoints, finished_result

_TEST_NAME = "test.json"


def train_model(report: RunReport, config: TrainerConfig, progress: ProgressDisplay, verbose: bool) -> None:
    """Trains unless the model is there; puts the metrics into `report`."""
    report.metrics = finished_result(Dataset.open(report.dataset, config), report.model, config)
    if report.metrics is not None:
        report.already_done.append("train")
        if worker_index() == 0:
            delete_checkpoints(report.model)
        return
    with report.timed("train", progress):
        with silent_imports(verbose):
            from trainer.train import train
        report.metrics = train(report.dataset, report.model, config, progress)


def measure_on_sample(report: RunReport, config: PipelineConfig, sample: SampleData, progress: ProgressDisplay) -> None:
    """Measures the export on the sample's test rows, if it has some; a second start reads the result."""
    if sample.test is None or sample.ceiling_auc is None:
        return
    known = Path(report.model, _TEST_NAME)
    with report.timed("test", progress):
        if "train" not in report.already_done or not known.exists():
            assert report.manifest is not None
            auc = _held_out_auc(join(report.model, "export"), sample.test, config, report.manifest, progress)
            write_json(known, {"auc": auc, "ceiling_auc": sample.ceiling_auc})
        report.test = HeldOutResult(**read_json(known))


def _held_out_auc(
    export: str, path: str, config: PipelineConfig, manifest: DatasetManifest, progress: ProgressDisplay
) -> float:
    """Predicts from raw tokens, as a server would, for the rows of a file that is written like the job's input."""
    from dotbias.evaluation.exported.client import Export
    from dotbias.evaluation.measure.metrics import auc
    from dotbias.evaluation.rows import read_files
    from pipeline.storage.matching import match_input

    rows = read_files(match_input([path]), config, manifest, {}, progress)
    probability = Export(export, manifest).probabilities(rows, progress)
    return auc(probability, rows.positive(manifest.label.positive_at))
