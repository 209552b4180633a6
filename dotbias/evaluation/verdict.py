"""What follows from an evaluation for who has to decide: ship the model, look first, or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dotbias.evaluation.formats import number, percent, signed, with_interval
from dotbias.evaluation.results import Baseline, Evaluation, EvaluationWarning, RankingAtK

Kind = Literal["go", "look", "stop", "none"]

# A mean distance of five points between prediction and share shifts decisions by a threshold, and is far above what
# chance does in a thousand rows (see `dotbias.evaluation.measure.metrics.expected_calibration_error`).
ECE_LIMIT = 0.05
# Of a slice: twice as much, since slices are many and small ones vary.
SLICE_LIMIT = 0.1
# Smaller slices cannot decide about a model.
_SLICE_SHARE, _SLICE_ROWS = 0.01, 100
# Where numbers are not about new rows, or there is nothing to tell apart, nothing follows from them.
_UNDECIDABLE = {"trained-on-these-rows", "leaked-rows", "one-class"}
# They say what is not there, not that something is wrong.
_HARMLESS = {"no-ranking"}


@dataclass(frozen=True)
class Verdict:
    """`kind` is `none` without an evaluation; `doubts` are why it is not `go`, `strengths` speak for the model.

    `use` is what it is good for, empty where nothing is known of that. Without `decides`, no number of the evaluation
    speaks for the model or against it. `about` says which model was measured, where that is not the one to ship.
    """

    kind: Kind
    headline: str
    doubts: list[str]
    strengths: list[str]
    use: str = ""
    decides: bool = True
    about: str = ""


def verdict(evaluation: Evaluation | None, auc_on_eval: float | None = None) -> Verdict:
    """Stops at what makes a model useless, else looks for what a person should look at.

    Args:
        evaluation: None if there is none.
        auc_on_eval: what training measured on the eval split, before a refit.
    """
    measured = f"Training measured an AUC of {number(auc_on_eval)} on eval rows that it had not seen."
    known = [] if auc_on_eval is None else [measured]
    if evaluation is None:
        unknown = "What the model adds to simpler ones, and where it fails, is not known before --stage evaluate."
        return Verdict("none", "Not evaluated yet", [unknown], known)
    void = [warning for warning in evaluation.warnings if warning.code in _UNDECIDABLE]
    if void:
        seen = any(warning.code == "trained-on-these-rows" for warning in void)
        return Verdict("look", "These numbers cannot decide", _told(void), known if seen else [], decides=False)
    about = _about(evaluation)
    if useless := _useless(evaluation):
        return Verdict("stop", "Do not ship", useless, [], about=about)
    if doubts := _doubts(evaluation):
        return Verdict("look", "Look before you ship", doubts, _strengths(evaluation), _use(evaluation), about=about)
    return Verdict("go", "Ready to ship", [], _strengths(evaluation), _use(evaluation), about=about)


def biases_alone(evaluation: Evaluation) -> Baseline | None:
    return next((baseline for baseline in evaluation.baselines if baseline.name == "biases alone"), None)


def sentence(text: str) -> str:
    """With a capital and a full stop: texts of warnings are parts of a line of the command."""
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _told(warnings: Sequence[EvaluationWarning]) -> list[str]:
    return [sentence(warning.text) for warning in warnings]


def _useless(evaluation: Evaluation) -> list[str]:
    auc = evaluation.metrics["auc"]
    if auc.value is None:
        return ["AUC is not defined for these rows."]
    reasons = []
    if (auc.value if auc.low is None else auc.low) <= 0.5:
        reasons.append(f"It may rank no better than chance: AUC {with_interval(auc)}, where 0.5 is chance.")
    biases = biases_alone(evaluation)
    if biases is not None and biases.auc_gain.value is not None:
        gain = biases.auc_gain
        if (gain.value if gain.high is None else gain.high) <= 0:  # type: ignore[operator]
            reasons.append(f"Biases alone rank better: the vectors change AUC by {with_interval(gain)}.")
    return reasons


def _doubts(evaluation: Evaluation) -> list[str]:
    doubts = _told([warning for warning in evaluation.warnings if warning.code not in _HARMLESS])
    biases = biases_alone(evaluation)
    if biases is not None and biases.auc_gain.low is not None and biases.auc_gain.low <= 0:
        doubts.append(
            "It is not certain that the vectors add anything to the biases: they change AUC by "
            f"{with_interval(biases.auc_gain)}."
        )
    ece = evaluation.metrics["ece"].value
    if ece is not None and ece > ECE_LIMIT:
        doubts.append(
            f"Probabilities are off by {percent(ece)} on average (more than {percent(ECE_LIMIT, 0)}): do not set "
            "thresholds or bids by them."
        )
    return doubts + _weak_slices(evaluation)


def _weak_slices(evaluation: Evaluation) -> list[str]:
    doubts = []
    for part in evaluation.slices:
        share = part.rows / max(evaluation.subject.rows, 1)
        if share < _SLICE_SHARE or part.rows < _SLICE_ROWS:
            continue
        where = f"{part.value!r} ({part.kind}; {percent(share)} of rows)"
        if part.auc.low is not None and part.auc.low <= 0.5:
            doubts.append(f"It may rank no better than chance for {where}: AUC {with_interval(part.auc)}.")
        off = part.prediction_mean - part.label_mean
        if abs(off) > SLICE_LIMIT:
            doubts.append(
                f"Predictions for {where} are {percent(part.prediction_mean)} on average, where "
                f"{percent(part.label_mean)} of rows are positive."
            )
    return doubts


def _strengths(evaluation: Evaluation) -> list[str]:
    auc, ece = evaluation.metrics["auc"], evaluation.metrics["ece"]
    reasons = []
    if auc.value is not None:
        reasons.append(
            f"Of a positive and a negative row it ranks the positive one higher in {percent(auc.value)} of cases "
            "(chance: 50.0%)."
        )
    biases = biases_alone(evaluation)
    if biases is not None and biases.auc_gain.value is not None and (biases.auc_gain.low or 0) > 0:
        reasons.append(
            f"The vectors add to what the biases alone know: AUC {signed(biases.auc_gain.value)}, log loss "
            f"{signed(-(biases.log_loss_gain.value or 0))}."
        )
    if ece.value is not None and ece.value <= ECE_LIMIT:
        reasons.append(f"Probabilities can be taken at their word: off by {percent(ece.value)} on average.")
    return reasons


def _about(evaluation: Evaluation) -> str:
    if not evaluation.subject.before_refit:
        return ""
    return (
        "Measured was the model before the refit, which has not been trained on these rows. What is served, `export/`, "
        "was then trained on them too: it should be at least as good, and these rows cannot show it."
    )


def _use(evaluation: Evaluation) -> str:
    """What the ranking of all items says of what to use the model for."""
    if evaluation.ranking is None:
        return ""
    at: dict[str, RankingAtK] = {ranker.name: ranker.at[0] for ranker in evaluation.ranking.rankers if ranker.at}
    model, popularity = at.get("model"), at.get("popularity")
    if model is None or popularity is None or model.ndcg.value is None or popularity.ndcg.value is None:
        return ""
    low, high = model.ndcg.low, model.ndcg.high
    compared = f"NDCG@{model.k} {number(model.ndcg.value, 3)} against {number(popularity.ndcg.value, 3)}"
    if (model.ndcg.value if low is None else low) > popularity.ndcg.value:
        return f"Among all items that a user has not seen it finds more than popularity alone ({compared})."
    how_much = "more" if (model.ndcg.value if high is None else high) < popularity.ndcg.value else "about as much"
    return (
        f"Use it to order candidates, not to find them among all items: there, popularity alone finds {how_much} "
        f"({compared})."
    )
