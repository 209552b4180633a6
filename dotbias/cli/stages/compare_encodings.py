"""Runs the stage `compare_encodings`: preprocesses and trains variants of the encoding, and recommends one."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import yaml

from dotbias.cli.configuration.load import Configuration
from dotbias.cli.console.facts import run_facts
from dotbias.cli.console.json_files import read_json, write_json
from dotbias.cli.console.logs import silent_imports
from dotbias.cli.console.progress import ProgressDisplay
from dotbias.cli.console.summary import ComparisonResult, RunReport, summary
from dotbias.cli.failures import UsageError
from dotbias.cli.flags import RUN_FLAGS
from dotbias.cli.run_lock import locked_run
from dotbias.cli.stage import Arguments, Outcome, Stage
from dotbias.cli.steps.dataset import generate, with_input
from dotbias.cli.steps.packages import DRAWING, require_packages
from dotbias.cli.steps.prepare import check_workers, prepare
from dotbias.evaluation.encodings.variants import TOKENS, Variant, make_variants, tokens_pipeline, with_thresholds
from pipeline.config import PipelineConfig
from pipeline.manifest import MANIFEST_NAME, DotbiasError, Progress, join
from pipeline.storage.paths import is_remote
from trainer.config import HashingConfig

COMPARE_DIRECTORY = "compare_encodings"
CONFIGURATION_NAME = "recommended.yaml"


def run(arguments: Arguments) -> Outcome:
    """Compares the variants, or goes on where an earlier start ended."""
    prepared = prepare(arguments, reads_log=True, trains=True)
    check_workers(arguments.stage, one_process=True)
    report = RunReport(prepared.dataset, prepared.model)
    with locked_run(prepared.run), ProgressDisplay() as progress:
        sample = generate(prepared, arguments.output_root, report, progress)
        pipeline = with_input(prepared.configuration.pipeline, sample)
        with report.timed("compare_encodings", progress):
            report.comparison = compare_run(arguments, prepared.configuration, pipeline, prepared.for_beam, progress)
    return Outcome(summary(report), run_facts(report))


def compare_run(
    arguments: Arguments,
    configuration: Configuration,
    pipeline: PipelineConfig,
    for_beam: list[str],
    progress: ProgressDisplay,
) -> ComparisonResult:
    """Makes the datasets, trains the variants and compares them; skips what an earlier start has finished.

    Args:
        arguments: the command line.
        configuration: the whole, checked.
        pipeline: its section `pipeline`, with the files of the log.
        for_beam: the flags of the Beam job.
        progress: told the step, and the rows done.

    Raises:
        UsageError: a package is missing, or the run is not on a local disk.
        DotbiasError: there are no eval rows, or there is a dataset or model of another configuration.
    """
    require_packages("compare_encodings", (*DRAWING, "sklearn"), "evaluation")
    if is_remote(arguments.output_root):
        raise UsageError(
            "--stage compare_encodings keeps its variants on a local disk. "
            f"Received: --output_root {arguments.output_root}"
        )
    with silent_imports(arguments.verbose):
        import numpy as np

        from dotbias.evaluation.encodings.comparison import compare
        from dotbias.evaluation.encodings.comparison_page import read_comparison, write_comparison
        from dotbias.evaluation.encodings.recommendation import recommend
        from dotbias.evaluation.encodings.tables import all_tables, markdown
        from dotbias.evaluation.encodings.train_variant import train_variant
        from dotbias.evaluation.shard_rows import read_eval, read_train
        from trainer.data.dataset import Dataset
    directory = join(arguments.output_root, "runs", arguments.run_id, COMPARE_DIRECTORY)
    datasets = _Datasets(join(directory, "datasets"), for_beam, arguments.verbose)
    path, _ = datasets.make(TOKENS, tokens_pipeline(pipeline), progress)
    # Any number of bins will do here, since rows are read with their tokens.
    any_bins = {name: HashingConfig(num_bins=1) for name in pipeline.features}
    tokens = Dataset.open(path, configuration.trainer.model_copy(update={"hashing": any_bins}))
    if not tokens.split("eval").rows:
        raise DotbiasError(f"{path} has no eval rows to compare on; set `pipeline.split.eval_fraction`.")
    train_rows = read_train(tokens, progress)
    eval_rows = read_eval(tokens, train_rows, progress)
    distinct_ids = {name: ids.known for name, ids in train_rows.ids.items()}
    once = {name: int((np.bincount(codes) == 1).sum()) for name, codes in train_rows.codes.items()}
    pipeline = with_thresholds(pipeline, len(train_rows), once)
    variants = make_variants(pipeline, configuration.trainer, configuration.compare, distinct_ids)
    measured, probabilities = [], []
    for number, variant in enumerate(variants, start=1):

        def of_variant(stage: str, *state: Any, place: str = f"{number}/{len(variants)} {variant.name}") -> None:
            progress(f"{place}: {stage}", *state)

        dataset, seconds = datasets.make(variant.dataset, variant.pipeline, of_variant)
        found, probability = train_variant(
            join(directory, "variants", variant.name),
            dataset,
            variant,
            seconds,
            tokens,
            train_rows,
            eval_rows,
            of_variant,
        )
        measured.append(found)
        probabilities.append(probability)
    comparison = read_comparison(directory)
    if comparison is None or comparison.variants != measured:
        comparison = compare(
            measured,
            probabilities,
            eval_rows.positive(tokens.manifest.label.positive_at),
            eval_rows,
            train_rows,
            next(name for name, side in tokens.sides.items() if side == "user"),
            "log-loss" if configuration.trainer.early_stopping.monitor == "label-crossentropy" else "auc",
            progress,
        )
    recommendation = recommend(comparison)
    chosen = next(variant for variant in variants if variant.name == recommendation.name)
    recommended = join(directory, CONFIGURATION_NAME)
    Path(recommended).write_text(recommended_configuration(configuration, chosen))
    write_comparison(directory, comparison, recommendation, recommended)
    return ComparisonResult(
        tables="\n".join(map(markdown, all_tables(comparison))),
        recommended=chosen.title,
        reasons=recommendation.reasons,
        directory=directory,
        configuration=recommended,
    )


class _Datasets:
    """Makes each dataset of a comparison once, and keeps the seconds that it took.

    `<directory>/<name>.json` holds the seconds; it is written last.
    """

    def __init__(self, directory: str, for_beam: list[str], verbose: bool) -> None:
        self._directory = directory
        self._for_beam = for_beam
        with silent_imports(verbose):
            # Imported before anything is timed.
            from pipeline.preprocess import preprocess
        self._preprocess = preprocess

    def make(self, name: str, config: PipelineConfig, progress: Progress) -> tuple[str, float]:
        """Makes a dataset; returns its path and the seconds that it took, now or in an earlier start.

        Raises:
            DotbiasError: its directory holds a dataset of another configuration or input.
        """
        path, seconds = join(self._directory, name), Path(self._directory, f"{name}.json")
        if not seconds.exists():
            # A dataset without a recorded time is made again, so that its seconds are known.
            shutil.rmtree(path, ignore_errors=True)
        known = Path(path, MANIFEST_NAME).exists()
        started = time.monotonic()
        # If there is a dataset, this compares its configuration and input.
        self._preprocess(path, config, self._for_beam, progress)
        if not known:
            write_json(seconds, {"seconds": time.monotonic() - started})
        return path, read_json(seconds)["seconds"]


def recommended_configuration(configuration: Configuration, variant: Variant) -> str:
    """Returns the text of a configuration file: the given one, with the encoding of a variant."""
    # Keys that were not given stay out, since some keys exclude each other.
    sections = configuration.model_dump(mode="json", exclude_unset=True)
    features = {
        name: feature.model_dump(mode="json", exclude_defaults=True)
        for name, feature in variant.pipeline.features.items()
    }
    sections["pipeline"]["features"] = features
    hashing = {name: options.model_dump(mode="json") for name, options in variant.trainer.hashing.items()}
    sections["trainer"] = {**sections.get("trainer", {}), "hashing": hashing}
    return "# Written by --stage compare_encodings.\n" + yaml.safe_dump(sections, sort_keys=False)


STAGE = Stage("compare_encodings", "trains with vocabularies and with hashing, and recommends one", RUN_FLAGS, run)
