"""Writes the summary of a run: counts, vocabularies, metrics, files, and how to use the model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dotbias.cli.console.progress import ProgressDisplay
from dotbias.cli.program import typed_command
from pipeline.manifest import MANIFEST_NAME, DatasetManifest, Feature, join

if TYPE_CHECKING:
    from dotbias.evaluation.verdict import Verdict
    from pipeline.beam.submission import Submission

# The most useful first.
METRICS = (
    "auc",
    "pr-auc",
    "accuracy",
    "ndcg@20",
    "recall@20",
    "label-crossentropy",
    "softmax-crossentropy",
    "prediction_mean",
    "label_mean",
    "rmse",
    "mae",
)


@dataclass(frozen=True)
class HeldOutResult:
    """Holds the AUC on held-out rows of the sample, and the AUC of the true model, which generated them."""

    auc: float
    ceiling_auc: float


@dataclass(frozen=True)
class TuningResult:
    """Holds the result of a search, see `trainer.search.tuning.Tuned`; `configuration` is the file with its options.

    `gain` is the difference in score and its standard error.
    """

    configuration: str
    output_root: str
    run_id: str
    values: Mapping[str, Any]
    gain: tuple[float, float] | None
    trials: int
    given_up: int
    cost: float


@dataclass(frozen=True)
class ComparisonResult:
    """Holds the result of a comparison: `tables` in Markdown, the recommendation, and the paths."""

    tables: str
    recommended: str
    reasons: list[str]
    directory: str
    configuration: str


@dataclass
class RunReport:
    """Collects the results of a run; a part is None if its step did not run."""

    dataset: str
    model: str
    manifest: DatasetManifest | None = None
    # Set instead of the manifest if the command did not wait for the job.
    submission: Submission | None = None
    metrics: Mapping[str, Any] | None = None
    # The verdict at the end of a run, and its lines in the summary.
    verdict: Verdict | None = None
    verdict_lines: list[str] = field(default_factory=list)
    test: HeldOutResult | None = None
    tuning: TuningResult | None = None
    # The path of the report; None without the packages that draw it.
    page: str | None = None
    comparison: ComparisonResult | None = None
    # Stages that an earlier start had finished.
    already_done: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, step: str, progress: ProgressDisplay) -> Iterator[None]:
        """Notes the seconds of a step, and ends its line of progress."""
        started = time.monotonic()
        yield
        progress.close()
        self.seconds[step] = time.monotonic() - started


def summary(report: RunReport) -> str:
    """Returns the text; it ends with a line end."""
    lines: list[str] = []
    if report.already_done:
        *others, last = report.already_done
        done = f"{', '.join(others)} and {last}" if others else last
        lines += section("Skipped", [f"{done}: already done by an earlier start"])
    if report.submission is not None:
        lines += _submission(report.submission)
    if report.manifest is not None:
        lines += _counts(report.manifest) + _features(report.manifest, report.metrics)
    if report.metrics is not None:
        lines += _training(report.metrics, report.manifest)
    lines += section("Verdict", report.verdict_lines)
    if report.test is not None:
        lines += _test(report.test)
    if report.tuning is not None:
        lines += _tuning(report.tuning)
    if report.comparison is not None:
        lines += [report.comparison.tables, *_comparison(report.comparison)]
    # A step that had nothing to do has no time.
    times = [f"{stage} {seconds:.1f}" for stage, seconds in report.seconds.items() if seconds >= 0.05]
    lines += section("Seconds", [", ".join(times)] if times else [])
    lines += _places(report)
    if report.tuning is not None:
        lines += _training_with(report.tuning)
    if report.metrics is not None and report.manifest is not None:
        lines += _usage(report, report.manifest)
    return "\n".join(lines) + "\n"


def section(title: str, lines: list[str]) -> list[str]:
    """Returns lines with a title in front of the first; none without lines."""
    return [f"{title if number == 0 else '':<12}{line}" for number, line in enumerate(lines)]


def _submission(submission: Submission) -> list[str]:
    if submission.job_id is None:
        return section("Checked", ["the job was built; the command does not wait for it"])
    return section("Submitted", [f"job {submission.job_id}; the dataset is complete when its manifest is there"])


def _counts(manifest: DatasetManifest) -> list[str]:
    counts = manifest.counts
    others = {"out of the window": counts.out_of_window, "duplicates": counts.duplicates}
    lines = [
        f"{counts.read:,} read = {counts.train:,} train + {counts.eval:,} eval + {counts.rejected:,} rejected"
        + "".join(f" + {rows:,} {outcome}" for outcome, rows in others.items() if rows)
    ]
    by_number = sorted(counts.rejected_by_reason.items(), key=lambda item: (-item[1], item[0]))
    for reason, number in by_number:
        not_kept = counts.rejected_not_kept.get(reason, 0)
        kept = f" ({number - not_kept:,} of them kept)" if not_kept else ""
        lines.append(f"{number:,} rejected: {reason}{kept}")
    return section("Rows", lines)


def _features(manifest: DatasetManifest, metrics: Mapping[str, Any] | None) -> list[str]:
    width = max(len(name) for name in manifest.features)
    # The number of bins belongs to the model, not to the dataset.
    bins = {name: options["num_bins"] for name, options in (metrics or {}).get("config", {}).get("hashing", {}).items()}
    return section(
        "Features",
        [
            f"{name:<{width}}  {feature.side}, "
            + (_hashing(bins.get(name)) if feature.encoding == "hashing" else _vocabulary(feature, manifest))
            for name, feature in manifest.features.items()
        ],
    )


def _hashing(num_bins: int | None) -> str:
    return "hashed by the trainer" if num_bins is None else f"hashed into {num_bins:,} bins"


def _vocabulary(feature: Feature, manifest: DatasetManifest) -> str:
    buckets = f"{feature.num_oov_buckets} OOV bucket{'' if feature.num_oov_buckets == 1 else 's'}"
    shares = [
        f"{rows / manifest.splits[split].rows:.2%} of {split}"
        for split, rows in (feature.oov_rows or {}).items()
        if manifest.splits[split].rows
    ]
    often = f" of {feature.frequency_threshold} rows or more" if (feature.frequency_threshold or 1) > 1 else ""
    return f"{feature.vocabulary_size:,} tokens{often} + {buckets}; OOV {', '.join(shares)}"


def _training(metrics: Mapping[str, Any], manifest: DatasetManifest | None) -> list[str]:
    train = metrics.get("train", {})
    records = train.get("epochs") or [{"epoch": 0}]
    epochs = records[-1]["epoch"]
    speed = train.get("rows_per_second")
    pace = f", {speed:,.0f} rows/s" if speed else ""
    times = "" if len(records) == epochs or not epochs else f", measured {len(records)} times"
    lines = section("Training", [f"{epochs:.3g} epoch{'' if epochs == 1 else 's'}{times}{pace}"])
    known = metrics.get("eval") or {}
    values = [f"{name} {known[name]:.4f}" for name in METRICS if known.get(name) is not None]
    shown = [", ".join(values[start : start + 3]) for start in range(0, len(values), 3)]
    if shown and manifest is not None and manifest.label.scale is not None:
        shown.append("auc, pr-auc and accuracy go by positive or not, the others by the label, which is on a scale")
    if shown and train.get("refit"):
        shown.append("measured before the refit, since the export was trained on these rows too")
    return lines + section("Eval", shown)


def _test(test: HeldOutResult) -> list[str]:
    difference = test.ceiling_auc - test.auc
    return section(
        "Test",
        [
            f"AUC {test.auc:.4f} on held-out rows, through the export",
            f"AUC {test.ceiling_auc:.4f} is the best possible, by the true model of the sample ({difference:.4f} away)",
        ],
    )


def _tuning(tuning: TuningResult) -> list[str]:
    given_up = f", {tuning.given_up} given up" if tuning.given_up else ""
    lines = [f"{tuning.trials} trials{given_up}; they and the choice cost as much as {tuning.cost:.1f} trainings"]
    if tuning.gain is not None:
        gain, error = tuning.gain
        lines.append(f"the best one gains {gain:+.4f} on other rows, with a standard error of {error:.4f}")
    if tuning.values:
        lines.append(", ".join(f"{key} {value:.4g}" for key, value in tuning.values.items()))
    else:
        lines.append("No options are better beyond chance: the given configuration stays.")
    return section("Tuning", lines)


def _comparison(comparison: ComparisonResult) -> list[str]:
    return section("Take", [comparison.recommended, *comparison.reasons])


def _training_with(tuning: TuningResult) -> list[str]:
    return [
        "",
        "To train with these options:",
        f"    {typed_command()} --config {tuning.configuration} --stage train "
        f"--output_root {tuning.output_root} --run_id {tuning.run_id}",
    ]


def _places(report: RunReport) -> list[str]:
    places = []
    if report.manifest is not None or report.submission is not None:
        places.append(f"dataset  {report.dataset}/{MANIFEST_NAME}")
        if report.manifest is not None and report.manifest.counts.rejected:
            places.append(f"rejected {report.dataset}/rejected/")
    if report.metrics is not None:
        places += [f"metrics  {report.model}/metrics.json", f"export   {report.model}/export/"]
    if report.page is not None:
        places.append(f"report   {report.page}")
    if report.tuning is not None:
        directory = report.tuning.configuration.rpartition("/")[0]
        places += [
            f"options  {report.tuning.configuration}",
            f"trials   {directory}/trials.csv",
            f"plots    {directory}/report.html",
        ]
    if report.comparison is not None:
        directory = report.comparison.directory
        places += [
            f"options  {report.comparison.configuration}",
            f"tables   {directory}/comparison.csv",
            f"plots    {directory}/report.html",
            f"models   {directory}/variants/",
        ]
    return section("Files", places)


def _usage(report: RunReport, manifest: DatasetManifest) -> list[str]:
    arguments = ", ".join(
        f"{name}=tf.constant([{_a_token(report.dataset, feature)}], tf.{feature.token_dtype})"
        for name, feature in manifest.features.items()
    )
    return [
        "",
        "To see the curves of the training:",
        f"    tensorboard --logdir {report.model}",
        "To predict with the export, with TensorFlow alone:",
        "    import tensorflow as tf",
        f"    model = tf.saved_model.load({join(report.model, 'export')!r})",
        '    predict = model.signatures["serving_default"]',
        f'    print(predict({arguments})["probability"])',
    ]


def _a_token(dataset: str, feature: Feature) -> str:
    """Returns the most frequent token as a Python literal, so that the printed lines can be run."""
    token = "1" if feature.token_dtype == "int64" else "a token"
    path = Path(dataset, feature.vocabulary_path) if feature.vocabulary_path else None
    if path is not None and path.is_file():
        with path.open() as file:
            token = file.readline().rstrip("\n") or token
    return token if feature.token_dtype == "int64" else repr(token)
