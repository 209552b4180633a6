"""Measures a challenger against the champion on the same rows, and applies the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dotbias.evaluation.paired import PairedComparison, compare_exports
from dotbias.evaluation.results import Estimate, Evaluation
from dotbias.evaluation.verdict import verdict_of
from dotbias.retraining.config import GateConfig
from dotbias.retraining.decision import Measured
from dotbias.retraining.drift import data_figures, psi_by_feature
from dotbias.retraining.gate import (
    Check,
    data_checks,
    floor_checks,
    margin_checks,
    slice_checks,
    verdict_check,
)
from dotbias.retraining.runs import RunPaths
from pipeline.manifest import DatasetManifest, Progress, join, read_manifest
from pipeline.storage.files import open_file
from pipeline.storage.trees import exists
from trainer.train import EXPORT_BEFORE_REFIT_DIRECTORY, EXPORT_DIRECTORY

# Of the lists that are compared.
K = 10
_NONE = Estimate(value=None)


@dataclass(frozen=True)
class Judgement:
    """Checks and the numbers behind them; `reasons` are why the challenger cannot be promoted whatever they say."""

    checks: list[Check]
    reasons: list[str]
    oov: dict[str, float]
    challenger: Measured
    champion: Measured | None
    gains: Measured | None
    refit_gains: Measured | None
