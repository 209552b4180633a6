"""Evaluates an export on rows and writes `evaluation.json`.

Train rows are read too: the known ids and their frequencies, the items that users have seen, and the baselines come
from them.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from pydantic import ValidationError

from dotbias.evaluation.exported.client import Export
from dotbias.evaluation.measure.biases import fit_biases
from dotbias.evaluation.measure.bootstrap import CORE, estimates, interval, num_resamples, resampled
from dotbias.evaluation.measure.metrics import (
    Positive,
    Probabilities,
    all_metrics,
    calibration_table,
    pr_curve,
    roc_curve,
)
from dotbias.evaluation.measure.ranking import evaluate_ranking
from dotbias.evaluation.measure.slices import groupings, measure_slices
from dotbias.evaluation.measure.warnings import (
    bias_warnings,
    cold_warnings,
    label_warnings,
    leak_warnings,
    mean_warnings,
    training_warnings,
)
from dotbias.evaluation.request import EmptySampleError, EvaluationRequest, is_before_refit, objective_of, training_of
from dotbias.evaluation.results import (
    EVALUATION_NAME,
    SLICES_NAME,
    Baseline,
    Estimate,
    Evaluation,
    EvaluationWarning,
    Ranking,
    Sample,
    Subject,
    slices_csv,
)
from dotbias.evaluation.rows import Rows, read_files
from dotbias.evaluation.shard_rows import first_feature, read_eval, read_train
from dotbias.evaluation.stored import StoredEvaluation, stored_evaluation, wanted
from dotbias.evaluation.user_sample import SampledRows, UserSample
from dotbias.evaluation.verdict import verdict
from pipeline.config import InputConfig, PipelineConfig, stored_unit
from pipeline.manifest import (
    DatasetManifest,
    DotbiasError,
    InputFile,
    Progress,
    join,
    tool_versions,
)
from trainer.data.dataset import Dataset
from trainer.data.files import write_text

# Seed of the resamples, and of the sample of users that are ranked for.
_SEED = 42


def evaluate(request: EvaluationRequest, progress: Progress) -> StoredEvaluation:
    """Writes `evaluation.json` and `slices.csv`, unless they exist and are of the same model and rows.

    Args:
        request: the model and the rows.
        progress: called with the stages `read`, `predict`, `baselines`, `intervals`, `rank` and `slices`.

    Raises:
        EmptySampleError: the sample of users that is asked for has no rows.
        DotbiasError: dataset, export or files are missing, do not fit each other, or have no rows, or the directory
            for the result cannot be written.
    """
    asked = wanted(request)
    if (there := stored_evaluation(asked)) is not None:
        return there
    data, manifest, files, directory = asked.data, asked.manifest, asked.files, asked.directory
    if request.split is not None and not data.split(request.split).rows:
        raise DotbiasError(
            f"{request.dataset} has no {request.split} rows to evaluate. Name files with --input, or preprocess with "
            "`pipeline.split.eval_fraction` above 0."
        )
    export = Export(asked.export, manifest)
    other = None if request.other_export is None else Export(request.other_export, manifest, fewer=True)
    sample = None if request.share == 1 else UserSample(request.share, _SEED)
    train = read_train(data, progress, sample)
    rows = _read_rows(request, data, files, train, progress, sample)
    if sample is not None and not (len(rows) and len(train)):
        raise EmptySampleError(f"a sample of {sample.share:.2%} of the users has no rows; measure a larger share.")
    _make_directory(directory)
    user, item = first_feature(data, "user"), first_feature(data, "item")
    subject = Subject(
        export=asked.export,
        export_fingerprint=asked.export_fingerprint,
        dataset=request.dataset,
        dataset_fingerprint=data.fingerprint,
        split=request.split,
        files=files,
        rows=len(rows),
        positives=int(rows.positive(manifest.label.positive_at).sum()),
        users=len(np.unique(rows.clusters(user))),
        rejected=sum(rows.rejected_by_reason.values()),
        rejected_by_reason=dict(rows.rejected_by_reason),
        user=user,
        item=item,
        resamples=num_resamples(len(rows)),
        before_refit=is_before_refit(asked.export),
        implicit=manifest.label.column is None,
        objective=objective_of(asked.export, has_labels=manifest.label.column is not None),
        other_export=request.other_export,
        sample=_described(sample, rows),
    )
    measured = _measure(subject, asked.fingerprint(request.share), data, export, other, train, rows, progress)
    evaluation = measured.model_copy(update={"verdict": verdict(measured)})
    # Written last: if it exists, both exist.
    write_text(join(directory, SLICES_NAME), slices_csv(evaluation.slices))
    write_text(join(directory, EVALUATION_NAME), evaluation.to_json())
    return StoredEvaluation(directory, evaluation, reused=False)


def _described(sample: UserSample | None, rows: Rows) -> Sample | None:
    if sample is None or rows.sampled_from is None:
        return None
    return Sample(share=sample.share, seed=sample.seed, rows=rows.sampled_from.rows, users=rows.sampled_from.users)


def _make_directory(directory: str) -> None:
    """Makes the directory of an evaluation, before the work on it."""
    try:
        tf.io.gfile.makedirs(directory)
    except tf.errors.OpError as error:
        raise DotbiasError(f"{directory} cannot be written: {error.message}.") from error


def _read_rows(
    request: EvaluationRequest,
    data: Dataset,
    files: list[InputFile],
    train: Rows,
    progress: Progress,
    sample: UserSample | None,
) -> Rows:
    if request.split == "train":
        return train
    if request.split == "eval":
        return read_eval(data, train, progress, sample)
    known = {name: ids.tokens[: ids.known] for name, ids in train.ids.items()}
    sampled = None if sample is None else SampledRows(sample, first_feature(data, "user"))
    return read_files(files, files_config(data.manifest, request.input), data.manifest, known, progress, sampled)


def files_config(manifest: DatasetManifest, of_files: InputConfig) -> PipelineConfig:
    """Returns the configuration of the dataset, with the format of new files."""
    try:
        return PipelineConfig.model_validate({**manifest.config, "input": of_files.model_dump()})
    except ValidationError as error:
        raise DotbiasError(
            "new files cannot be read: the configuration in the manifest of the dataset does not fit this version "
            f"({error.errors()[0]['msg']}). Preprocess again."
        ) from None


def _measure(
    subject: Subject,
    depends_on: str,
    data: Dataset,
    export: Export,
    other: Export | None,
    train: Rows,
    rows: Rows,
    progress: Progress,
) -> Evaluation:
    user, item, positive_at = subject.user, subject.item, data.manifest.label.positive_at
    positive = rows.positive(positive_at)
    probability = export.probabilities(rows, progress)
    clusters = rows.clusters(user)
    progress("baselines", 0, len(rows), {})
    baselines = _baselines(train, rows, user, item, positive_at, probability, positive)
    progress("baselines", len(rows), len(rows), {})
    progress("intervals", 0, len(rows), {})
    metrics = estimates(probability, positive, clusters, seed=_SEED)
    progress("intervals", len(rows), len(rows), {})
    warnings = training_warnings(training_of(subject.export), subject.before_refit, subject.split, data.fingerprint)
    if subject.split != "train":
        warnings += leak_warnings(rows, train)
        # A sample of the users has more items with few rows than the log, so it says nothing about new items.
        warnings += [
            warning
            for name in ((user, item) if subject.sample is None else (user,))
            for warning in cold_warnings(rows, train, name)
        ]
    if not subject.makes_lists:
        warnings += label_warnings(positive) + bias_warnings(baselines) + mean_warnings(probability, positive, clusters)
    ranking, no_ranking = _ranking(
        subject, export, other, rows, train, probability, positive, train.positive(positive_at), progress
    )
    unit = stored_unit(data.manifest.config.get("timestamp_unit", "s"))
    return Evaluation(
        fingerprint=depends_on,
        subject=subject,
        metrics=metrics,
        calibration=calibration_table(probability, positive),
        roc=roc_curve(probability, positive),
        pr=pr_curve(probability, positive),
        slices=measure_slices(groupings(rows, train, user, item, unit), probability, positive, clusters, progress),
        baselines=baselines,
        ranking=ranking,
        warnings=warnings + no_ranking,
        versions=tool_versions(),
    )


def _baselines(
    train: Rows,
    rows: Rows,
    user: str,
    item: str,
    positive_at: float,
    probability: Probabilities,
    positive: Positive,
) -> list[Baseline]:
    in_train = train.positive(positive_at)
    biases = fit_biases(train.codes[user], train.codes[item], in_train, train.ids[user].known, train.ids[item].known)
    predictions: list[Probabilities] = [
        np.full(len(rows), in_train.mean(), np.float32),
        biases.probabilities(rows.codes[user], rows.codes[item]),
    ]
    drawn = resampled([probability, *predictions], positive, rows.clusters(user), metrics=CORE, seed=_SEED)
    model = all_metrics(probability, positive, CORE)
    baselines = []
    for number, (name, prediction) in enumerate(zip(("base rate", "biases alone"), predictions, strict=True), start=1):
        values = all_metrics(prediction, positive, CORE)

        def alone(metric: str, of: int = number, values: dict[str, float] = values) -> Estimate:
            return interval(values[metric], drawn[metric][of] if drawn else None)

        def gain(metric: str, sign: int, of: int = number, values: dict[str, float] = values) -> Estimate:
            by = sign * (drawn[metric][0] - drawn[metric][of]) if drawn else None
            return interval(sign * (model[metric] - values[metric]), by)

        baselines.append(
            Baseline(
                name=name,
                auc=alone("auc"),
                log_loss=alone("log-loss"),
                auc_gain=gain("auc", 1),
                log_loss_gain=gain("log-loss", -1),
            )
        )
    return baselines


def _ranking(
    subject: Subject,
    export: Export,
    other: Export | None,
    rows: Rows,
    train: Rows,
    probability: Probabilities,
    positive: Positive,
    liked: Positive,
    progress: Progress,
) -> tuple[Ranking | None, list[EvaluationWarning]]:
    if not export.vectors_explain(rows, probability):
        text = "ranking skipped: the probabilities of the export are not a dot product of its tables"
        return None, [EvaluationWarning(code="no-ranking", text=text)]
    ranking = evaluate_ranking(
        export,
        rows,
        train,
        positive,
        subject.user,
        subject.item,
        progress,
        seed=_SEED,
        liked=liked,
        other=other,
        folds_in=subject.makes_lists,
    )
    if ranking is None:
        text = "ranking skipped: every positive row has an item that is unknown or already in its user's train rows"
        return None, [EvaluationWarning(code="no-ranking", text=text)]
    return ranking, []
