"""Checks verdicts case by case."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dotbias.evaluation.results import Baseline, Estimate
from dotbias.evaluation.verdict import SLICE_AUC, verdict
from tests.dotbias.evaluation.contents import estimate, evaluation, ranking, slice_, subject, warning

METRICS = evaluation().metrics


def biases(auc_gain: Estimate) -> list[Baseline]:
    one = estimate(0.7)
    return [Baseline(name="biases alone", auc=one, log_loss=one, auc_gain=auc_gain, log_loss_gain=estimate(0.01))]


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        ({}, "go", "80.0% of all such pairs"),
        # A missing ranking is no fault of the model.
        ({"warnings": [warning("no-ranking")], "ranking": None}, "go", "80.0% of all such pairs"),
        # No interval, since there are too few users: the value alone decides.
        ({"metrics": {**METRICS, "auc": Estimate(value=0.6)}}, "go", "60.0% of all such pairs"),
        ({"metrics": {**METRICS, "auc": Estimate(value=0.5)}}, "stop", "no better than chance"),
        ({"metrics": {**METRICS, "auc": estimate(0.505, 0.01)}}, "stop", "no better than chance"),
        ({"metrics": {**METRICS, "auc": Estimate(value=None)}}, "stop", "not defined"),
        ({"baselines": biases(estimate(-0.03))}, "stop", "Biases alone rank better"),
        ({"baselines": biases(Estimate(value=-0.03))}, "stop", "Biases alone rank better"),
        ({"baselines": biases(estimate(0.005, 0.01))}, "look", "may add nothing to the biases"),
        ({"baselines": []}, "go", "80.0% of all such pairs"),
        ({"metrics": {**METRICS, "ece": estimate(0.08)}}, "look", "off by 8.0%"),
        ({"warnings": [warning("off-in-the-mean", "the mean is off")]}, "look", "The mean is off."),
        ({"warnings": [warning("one-class", "all rows are positive")]}, "look", "All rows are positive."),
        (
            {"slices": [slice_("user", "cold", 300, 0.51)]},
            "look",
            "hardly better than chance for 'cold' (user; 30.0% of rows)",
        ),
        ({"slices": [slice_("user", "cold", 300, 0.8, prediction_mean=0.7)]}, "look", "70.0% on average"),
        # Too small to decide.
        ({"slices": [slice_("user", "cold", 90, 0.51, prediction_mean=0.9)]}, "go", "80.0% of all such pairs"),
    ],
)
def test_verdicts(changes: dict[str, Any], kind: str, reason: str) -> None:
    decided = verdict(evaluation(**changes))
    assert decided.kind == kind
    assert reason in " ".join(decided.strengths if kind == "go" else decided.reasons)
    assert (kind == "go") == (not decided.reasons)


@pytest.mark.parametrize(
    ("model", "popularity", "use"),
    [
        (0.1, 0.05, "finds more than popularity alone (NDCG@10 0.100 against 0.050)"),
        (0.05, 0.1, "popularity alone finds more"),
        (0.095, 0.1, "popularity alone finds about as much"),
    ],
)
def test_what_the_model_is_good_for(model: float, popularity: float, use: str) -> None:
    assert use in verdict(evaluation(ranking=ranking(model, popularity))).use
    assert verdict(evaluation(ranking=None)).use == ""


def test_numbers_of_rows_that_were_trained_on_cannot_decide() -> None:
    decided = verdict(evaluation(warnings=[warning("trained-on-these-rows", "refit")]), auc_on_eval=0.77)
    assert decided.headline == "These numbers cannot decide" and not decided.decides
    # The metric that training measured before the refit is not too good.
    assert "0.7700" in " ".join(decided.strengths)
    assert "80.0%" not in " ".join(decided.strengths)


def test_which_model_was_measured_is_said_where_it_is_not_the_one_to_ship() -> None:
    decided = verdict(evaluation(subject=subject(before_refit=True)))
    assert decided.kind == "go" and "the model before the refit" in decided.about
    assert verdict(evaluation()).about == ""


def test_a_model_that_is_useless_is_so_in_spite_of_lesser_doubts() -> None:
    doubts = {"warnings": [warning()], "baselines": biases(estimate(-0.03))}
    assert verdict(evaluation(**doubts)).kind == "stop"


def test_without_an_evaluation() -> None:
    assert verdict(None).kind == "none"
    assert "0.8100" in verdict(None, 0.81).strengths[0]


def test_healthy_slices_raise_no_alarm_however_many_there_are() -> None:
    """Two of ten deciles have an interval that reaches 0.5, as happens by chance with small slices."""
    deciles = [slice_("item: popularity decile", str(decile), 150, 0.6) for decile in range(8)]
    unlucky = [slice_("item: popularity decile", str(decile), 150, 0.52) for decile in (8, 9)]
    assert all(part.auc.low is not None and part.auc.low <= 0.5 for part in unlucky)
    assert verdict(evaluation(slices=[*deciles, *unlucky])).kind == "go"


def test_false_alarms_and_alarms_of_many_slices() -> None:
    """Forty slices whose true AUC is the limit give an alarm in at most one of forty logs, by Bonferroni."""
    rng = np.random.default_rng(0)

    def judged(true_aucs: list[float]) -> str:
        measured = rng.normal(true_aucs, 0.015)
        return verdict(evaluation(slices=[slice_("a", str(n), 500, auc) for n, auc in enumerate(measured)])).kind

    alarms = sum(judged([SLICE_AUC] * 40) == "look" for _ in range(400))
    assert alarms <= 20
    # One slice in forty that is ordered by chance is found.
    assert sum(judged([0.7] * 39 + [0.46]) == "look" for _ in range(50)) > 45


def test_the_checks_say_what_was_decided() -> None:
    checks = {check.name: check for check in verdict(evaluation(warnings=[warning()])).checks}
    auc = checks["AUC, lower end"]
    assert (auc.value, auc.rule, auc.limit, auc.passed, auc.fails_as) == (0.79, "above", 0.5, True, "stop")
    assert not checks["warning: no-cold-ids"].passed
    assert sum(not check.passed for check in checks.values()) == 1
    undefined = verdict(evaluation(metrics={**METRICS, "auc": Estimate(value=None)})).checks[0]
    assert undefined.value is None and not undefined.passed


@pytest.mark.parametrize(
    ("model", "popularity", "kind", "reason"),
    [
        (0.1, 0.05, "go", ""),
        (0.055, 0.05, "look", "The model may find no more than popularity alone: NDCG@10 0.0550"),
        (0.02, 0.05, "stop", "Popularity alone finds more"),
    ],
)
def test_a_model_without_labels_is_judged_by_its_lists(model: float, popularity: float, kind: str, reason: str) -> None:
    """All rows are positive, so AUC is not defined, and no prediction is near 1."""
    metrics = {**METRICS, "auc": Estimate(value=None), "ece": estimate(0.99)}
    lists = ranking(model, popularity)
    decided = verdict(evaluation(subject=subject(implicit=True), metrics=metrics, ranking=lists, slices=[]))
    assert decided.kind == kind and reason in " ".join(decided.reasons)
    assert len(decided.checks) == 2
    if kind == "go":
        assert "finds more than popularity alone" in decided.use


def test_a_model_that_makes_lists_is_judged_by_them_though_its_log_has_labels() -> None:
    poor = {**METRICS, "auc": estimate(0.45)}
    decided = verdict(evaluation(subject=subject(objective="softmax"), metrics=poor))
    assert decided.kind == "go" and not any("AUC" in check.name for check in decided.checks)
    assert decided.strengths == [
        "40.0% of users find something among the first 10 items.",
        "The lists improve on popularity alone: NDCG@10 +0.0500.",
    ]


@pytest.mark.parametrize(
    ("other", "kind"), [(0.08, "go"), (0.105, "go"), (0.13, "look")], ids=["behind", "level", "ahead"]
)
def test_lists_that_are_worse_than_those_of_another_export_want_a_look(other: float, kind: str) -> None:
    lists = ranking(0.1, 0.05, other_export=other, fold_in=0.09)
    decided = verdict(evaluation(subject=subject(implicit=True), ranking=lists, slices=[]))
    assert decided.kind == kind
    assert ("The other export finds more" in " ".join(decided.reasons)) == (kind == "look")
    assert any("the other export" in strength for strength in decided.strengths) == (other == 0.08)


def test_lists_of_an_earlier_version_are_judged_without_paired_gains() -> None:
    lists = ranking(0.055, 0.05)
    earlier = lists.model_copy(update={"rankers": [r.model_copy(update={"gains": []}) for r in lists.rankers]})
    assert verdict(evaluation(subject=subject(implicit=True), ranking=earlier)).kind == "look"


def test_a_model_without_labels_and_lists_is_not_judged() -> None:
    warnings = [warning("no-ranking", "ranking skipped")]
    decided = verdict(evaluation(subject=subject(implicit=True), ranking=None, warnings=warnings))
    assert (decided.kind, decided.decides) == ("none", False)
    assert decided.reasons == ["Ranking skipped."]
