"""Makes the dataset of a run: the sample is generated if no log is named, then the Beam job runs."""

from __future__ import annotations

import os
from pathlib import Path

from dotbias.cli.beam.flags import runs_by_default
from dotbias.cli.console.logs import silent_imports
from dotbias.cli.console.progress import ProgressDisplay
from dotbias.cli.console.summary import RunReport
from dotbias.cli.failures import UsageError
from dotbias.cli.steps.prepare import Prepared
from dotbias.cli.steps.sample_data import SampleData, sample_data
from pipeline.config import PipelineConfig
from pipeline.manifest import DatasetManifest
from pipeline.output.existing import existing_manifest
from pipeline.storage.matching import match_input
from trainer.devices.cluster import num_workers


def generate(prepared: Prepared, output_root: str, report: RunReport, progress: ProgressDisplay) -> SampleData | None:
    """Generates the sample if no log is named; returns None if one is."""
    sample = prepared.configuration.sample
    if sample is None or not prepared.generates:
        return None
    with report.timed("generate", progress):
        return sample_data(output_root, sample, progress)


def with_input(config: PipelineConfig, sample: SampleData | None) -> PipelineConfig:
    """Returns `config` with the file of the sample as its input, if there is one."""
    if sample is None:
        return config
    return config.model_copy(update={"input": config.input.model_copy(update={"patterns": (sample.train,)})})


def make_dataset(
    prepared: Prepared, sample: SampleData | None, report: RunReport, progress: ProgressDisplay, verbose: bool
) -> None:
    """Runs the Beam job unless its dataset is there; puts the manifest, or the submitted job, into `report`.

    Raises:
        UsageError: several workers of `TF_CONFIG` would each make it.
        DotbiasError: the job failed, or a dataset of another configuration or input is there.
    """
    config = with_input(prepared.configuration.pipeline, sample)
    # The job itself asks BigQuery for a table.
    files = None if config.input.format == "bigquery" else match_input(config.input.patterns)
    if files is not None:
        finished = existing_manifest(report.dataset, config, files)
        if finished is not None:
            report.already_done.append("preprocess")
            report.manifest = finished
            return
    if num_workers() > 1:
        raise UsageError(
            f"{report.dataset} is not complete, and each of the {num_workers()} workers of TF_CONFIG would make it; "
            "run --stage preprocess once, without TF_CONFIG, then start this command again"
        )
    with report.timed("preprocess", progress):
        let_workers_import()
        kept = None
        if files is not None and runs_by_default(prepared.for_beam):
            # Arrow, which --help should not wait for, has been imported to check the first rows.
            from pipeline.input.kept_batches import KeptBatches

            kept = KeptBatches(files)
            kept.read_ahead(config)
        with silent_imports(verbose):
            from pipeline.preprocess import preprocess
        made = preprocess(report.dataset, config, prepared.for_beam, progress, kept)
    if isinstance(made, DatasetManifest):
        report.manifest = made
    else:
        report.submission = made


def let_workers_import() -> None:
    """Lets Beam's worker processes find the packages, from wherever the command was started."""
    root = str(Path(__file__).resolve().parents[3])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
