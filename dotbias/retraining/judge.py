"""Measures a challenger against the champion on the same rows, and applies the gate."""

from __future__ import annotations

from dataclasses import dataclass, field

import tensorflow as tf

from dotbias.evaluation.paired import K, Measured, compare_exports
from dotbias.evaluation.results import Estimate, Evaluation
from dotbias.evaluation.verdict import verdict
from dotbias.retraining.config import GateConfig
from dotbias.retraining.drift import data_figures, psi_by_feature
from dotbias.retraining.gate import (
    Check,
    data_checks,
    floor_checks,
    list_floor_checks,
    margin_checks,
    slice_checks,
    verdict_check,
)
from dotbias.retraining.runs import RunPaths
from pipeline.manifest import DatasetManifest, DotbiasError, Progress, join, read_manifest
from trainer.output.result import EXPORT_BEFORE_REFIT_DIRECTORY, EXPORT_DIRECTORY

_CHAMPION_BEFORE_REFIT = "champion before its refit"
_CHALLENGER = "challenger"


@dataclass(frozen=True)
class Judgement:
    """Holds the checks and their numbers.

    `against` is the run that the challenger has to beat, None if there is none. With any of `reasons`, the challenger
    is not promoted even if all checks pass.
    """

    checks: list[Check]
    challenger: Measured
    champion: Measured | None = None
    gains: Measured | None = None
    refit_gains: Measured | None = None
    against: str | None = None
    reasons: list[str] = field(default_factory=list)


def judge(
    run: RunPaths,
    manifest: DatasetManifest,
    evaluation: Evaluation,
    champion: RunPaths | None,
    config: GateConfig,
    progress: Progress,
) -> Judgement:
    """Applies every check for which there are numbers.

    Args:
        run: paths of the challenger's run.
        manifest: manifest of its dataset.
        evaluation: its evaluation on the eval rows.
        champion: the run to compare with; None if there is none, or it may have seen the eval rows.
        config: the limits.
        progress: called with the progress of the comparison.
    """
    found, implicit, measured = verdict(evaluation), evaluation.subject.implicit, _measured(evaluation)
    checks = [
        *(
            list_floor_checks(measured.ndcg.value, config.floors)
            if implicit
            else floor_checks(evaluation.metrics, config.floors)
        ),
        *([verdict_check(found.reasons, stops=found.kind == "stop")] if config.verdict else []),
    ]
    if champion is None:
        return Judgement(checks, challenger=measured)
    champion_export = join(champion.model, EXPORT_DIRECTORY)
    if not has_export(champion):
        raise DotbiasError(
            f"{champion_export} is gone, so nothing can be compared with the champion. Restore it, or make another "
            "run the champion with --stage rollback --run_id."
        )
    others = {_CHALLENGER: measured_export(run)}
    before_refit = join(champion.model, EXPORT_BEFORE_REFIT_DIRECTORY)
    if tf.io.gfile.exists(join(before_refit, "saved_model.pb")):
        others[_CHAMPION_BEFORE_REFIT] = before_refit
    compared = compare_exports(champion_export, others, run.dataset, progress, features=list(config.slices.features))
    pair = compared.pairs[_CHALLENGER]
    old = read_manifest(champion.dataset, tf.io.gfile.GFile)
    slices = {name: part.pairs[_CHALLENGER].gains.auc for name, part in compared.slices.items()}
    checks = [
        *margin_checks(
            {"auc": pair.gains.auc, "log_loss": pair.gains.log_loss, "ndcg": pair.gains.ndcg},
            config.margin,
            implicit=implicit,
        ),
        # Rows of one class have no AUC.
        *([] if implicit else slice_checks(slices, config.slices)),
        *data_checks(
            data_figures(old),
            data_figures(manifest),
            psi_by_feature(champion.dataset, old, run.dataset, manifest),
            config.data,
        ),
        *checks,
    ]
    refit = compared.pairs.get(_CHAMPION_BEFORE_REFIT)
    return Judgement(
        checks,
        challenger=pair.second,
        champion=pair.first,
        gains=pair.gains,
        refit_gains=None if refit is None else _negative(refit.gains),
    )


def has_export(run: RunPaths) -> bool:
    """Returns whether the export of a run is there."""
    return tf.io.gfile.exists(join(run.model, EXPORT_DIRECTORY, "saved_model.pb"))


def missing_features(champion: DatasetManifest, challenger: DatasetManifest) -> list[str]:
    """Returns the features that a champion takes and the rows of a challenger do not have, or have of another type."""
    has = {name: feature.token_dtype for name, feature in challenger.features.items()}
    return [name for name, feature in champion.features.items() if has.get(name) != feature.token_dtype]


def measured_export(run: RunPaths) -> str:
    """Returns the export of a run that has not been trained on its eval rows."""
    before_refit = join(run.model, EXPORT_BEFORE_REFIT_DIRECTORY)
    if tf.io.gfile.exists(join(before_refit, "saved_model.pb")):
        return before_refit
    return join(run.model, EXPORT_DIRECTORY)


def _measured(evaluation: Evaluation) -> Measured:
    ndcg = Estimate(value=None)
    if evaluation.ranking is not None:
        model = next(ranker for ranker in evaluation.ranking.rankers if ranker.name == "model")
        ndcg = next((at.ndcg for at in model.at if at.k == K), ndcg)
    return Measured(auc=evaluation.metrics["auc"], log_loss=evaluation.metrics["log-loss"], ndcg=ndcg)


def _negative(gains: Measured) -> Measured:
    """Turns the gains of one model over another around."""

    def turned(gain: Estimate) -> Estimate:
        if gain.value is None or gain.low is None or gain.high is None:
            return Estimate(value=None if gain.value is None else -gain.value)
        return Estimate(value=-gain.value, low=-gain.high, high=-gain.low)

    return Measured(auc=turned(gains.auc), log_loss=turned(gains.log_loss), ndcg=turned(gains.ndcg))
