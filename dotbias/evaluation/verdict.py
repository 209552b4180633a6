"""Turns an evaluation into a verdict: ship the model, look at it first, or do not ship it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist

from dotbias.evaluation.formats import number, of_sample, percent, signed, with_interval
from dotbias.evaluation.results import (
    Baseline,
    Check,
    Estimate,
    Evaluation,
    EvaluationWarning,
    Ranker,
    Slice,
    Verdict,
    VerdictKind,
)

__all__ = ["Verdict", "VerdictKind", "biases_alone", "sentence", "verdict"]

_CHANCE = 0.5
# An average distance of five points between prediction and share of positive rows moves decisions by a threshold, and
# is far more than chance gives in a thousand rows (`dotbias.evaluation.measure.metrics.expected_calibration_error`).
ECE_LIMIT = 0.05
# A slice with an AUC below this is ranked hardly better than by chance.
SLICE_AUC = 0.55
# Twice the limit for all rows, since predictions for a group vary more than for all.
SLICE_LIMIT = 0.1
# Smaller slices cannot decide about a model.
_SLICE_SHARE, _SLICE_ROWS = 0.01, 100
# The probability that any of the slices is reported by chance.
_FALSE_ALARM = 0.025
# With one of these warnings, the numbers say nothing about new rows.
_VOID = {"trained-on-these-rows", "leaked-rows", "one-class"}
# Something was not measured, which is no fault of the model.
_HARMLESS = {"no-ranking"}


def verdict(evaluation: Evaluation | None, auc_on_eval: float | None = None) -> Verdict:
    """Judges a model by its evaluation.

    A check that fails gives `stop` where the model is useless, and `look` where a person has to decide.

    Args:
        evaluation: None if there is none.
        auc_on_eval: AUC on the eval split that training measured before a refit; None if not known.
    """
    measured = f"Training measured an AUC of {number(auc_on_eval)} on eval rows that it had not seen."
    known = [] if auc_on_eval is None else [measured]
    if evaluation is None:
        unknown = "Run --stage evaluate to compare the model with simpler ones and to see where it fails."
        return Verdict(kind="none", headline="Not evaluated yet", reasons=[unknown], strengths=known)
    void = [warning for warning in evaluation.warnings if warning.code in _VOID]
    if void:
        seen = any(warning.code == "trained-on-these-rows" for warning in void)
        return Verdict(
            kind="look",
            headline="These numbers cannot decide",
            reasons=[sentence(warning.text) for warning in void],
            strengths=known if seen else [],
            decides=False,
            checks=_warning_checks(void),
        )
    if evaluation.subject.makes_lists and evaluation.ranking is None:
        reasons = [sentence(warning.text) for warning in evaluation.warnings if warning.code == "no-ranking"]
        return Verdict(kind="none", headline="No lists were measured", reasons=reasons, decides=False)
    if evaluation.subject.makes_lists:
        found = [*_of_lists(evaluation), *_doubts(evaluation)]
    else:
        found = [*_useless(evaluation), *_doubtful(evaluation)]
    checks = [check for check, _ in found]
    for kind, headline in (("stop", "Do not ship"), ("look", "Look before you ship")):
        reasons = [reason for check, reason in found if not check.passed and check.fails_as == kind]
        if reasons:
            return Verdict(
                kind=kind,
                headline=headline,
                reasons=reasons,
                strengths=[] if kind == "stop" else _strengths(evaluation),
                use="" if kind == "stop" else _use(evaluation),
                about=_about(evaluation),
                checks=checks,
            )
    return Verdict(
        kind="go",
        headline="Ready to ship",
        reasons=[],
        strengths=_strengths(evaluation),
        use=_use(evaluation),
        about=_about(evaluation),
        checks=checks,
    )


def biases_alone(evaluation: Evaluation) -> Baseline | None:
    return next((baseline for baseline in evaluation.baselines if baseline.name == "biases alone"), None)


def sentence(text: str) -> str:
    """Makes a sentence of the text of a warning: a capital letter and a full stop."""
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _above(name: str, value: float | None, limit: float, fails_as: VerdictKind) -> Check:
    passed = value is not None and value > limit
    return Check(name=name, value=value, rule="above", limit=limit, passed=passed, fails_as=fails_as)


def _at_most(name: str, value: float | None, limit: float, fails_as: VerdictKind) -> Check:
    passed = value is None or value <= limit
    return Check(name=name, value=value, rule="at most", limit=limit, passed=passed, fails_as=fails_as)


def _useless(evaluation: Evaluation) -> Iterator[tuple[Check, str]]:
    """Yields the checks that stop a model, each with the reason to give if it fails."""
    auc = evaluation.metrics["auc"]
    reason = f"The model may rank no better than chance: AUC {with_interval(auc)}; chance is 0.5."
    if auc.value is None:
        reason = "AUC is not defined for these rows."
    yield _above("AUC, lower end", auc.value if auc.low is None else auc.low, _CHANCE, "stop"), reason
    biases = biases_alone(evaluation)
    if biases is not None and biases.auc_gain.value is not None:
        gain = biases.auc_gain
        yield (
            _above("AUC gain over biases alone, upper end", gain.value if gain.high is None else gain.high, 0, "stop"),
            f"Biases alone rank better: the vectors change AUC by {with_interval(gain)}.",
        )


def _of_lists(evaluation: Evaluation) -> Iterator[tuple[Check, str]]:
    """Yields the checks of a model that makes lists: they should be better than the same list for all users.

    Where another export was compared, they should not be worse than its lists.
    """
    assert evaluation.ranking is not None
    model, *others = evaluation.ranking.rankers
    ndcg, k = model.at[0].ndcg, model.at[0].k
    for other in others:
        gain = gain_in_ndcg(model, other)
        if other.name == "fold-in" or gain.value is None:
            continue
        name = {"popularity": "popularity"}.get(other.name, "the other export")
        compared = f"NDCG@{k} {with_interval(ndcg)} against {number(other.at[0].ndcg.value)}"
        low, high = (gain.value if end is None else end for end in (gain.low, gain.high))
        is_popularity = other.name == "popularity"
        yield (
            _above(f"NDCG@{k} gain over {name}, upper end", high, 0, "stop" if is_popularity else "look"),
            f"{'Popularity alone' if is_popularity else 'The other export'} finds more: {compared}.",
        )
        if is_popularity:
            yield (
                _above(f"NDCG@{k} gain over {name}, lower end", low, 0, "look"),
                f"The model may find no more than popularity alone: {compared}.",
            )


def gain_in_ndcg(model: Ranker, other: Ranker) -> Estimate:
    """Returns the model's gain over another ranker on the shortest lists; before version 3, files had no paired one."""
    if other.gains:
        return other.gains[0].ndcg
    ndcg, of_other = model.at[0].ndcg, other.at[0].ndcg.value
    if ndcg.value is None or of_other is None:
        return Estimate(value=None)
    low, high = (None if end is None else end - of_other for end in (ndcg.low, ndcg.high))
    return Estimate(value=ndcg.value - of_other, low=low, high=high)


def _doubts(evaluation: Evaluation) -> Iterator[tuple[Check, str]]:
    """Yields a failed check for each warning."""
    doubtful = [warning for warning in evaluation.warnings if warning.code not in _HARMLESS]
    yield from zip(_warning_checks(doubtful), [sentence(warning.text) for warning in doubtful], strict=True)


def _doubtful(evaluation: Evaluation) -> Iterator[tuple[Check, str]]:
    """Yields the checks that make the verdict `look`, each with the reason to give if it fails."""
    yield from _doubts(evaluation)
    biases = biases_alone(evaluation)
    if biases is not None and biases.auc_gain.low is not None:
        yield (
            _above("AUC gain over biases alone, lower end", biases.auc_gain.low, 0, "look"),
            f"The vectors may add nothing to the biases: they change AUC by {with_interval(biases.auc_gain)}.",
        )
    ece = evaluation.metrics["ece"].value
    yield (
        _at_most("calibration error", ece, ECE_LIMIT, "look"),
        f"Probabilities are off by {percent(ece)} on average, more than {percent(ECE_LIMIT, 0)}. Do not use them for "
        "thresholds or bids.",
    )
    yield from _slices(evaluation)


def _warning_checks(warnings: Sequence[EvaluationWarning]) -> list[Check]:
    return [_at_most(f"warning: {warning.code}", 1, 0, "look") for warning in warnings]


def _slices(evaluation: Evaluation) -> Iterator[tuple[Check, str]]:
    """Yields the checks of slices that are large enough to matter.

    A slice fails only if it is shown to be weak: its limit lies outside an interval that is wide enough for the number
    of slices (Bonferroni). With 95 % intervals, one of forty good slices would fail by chance.
    """
    slices = [
        slice_
        for slice_ in evaluation.slices
        if slice_.rows >= max(_SLICE_SHARE * evaluation.subject.rows, _SLICE_ROWS)
    ]
    errors = NormalDist().inv_cdf(1 - _FALSE_ALARM / max(len(slices), 1))
    for slice_ in slices:
        where = f"{slice_.value!r} ({slice_.kind}; {percent(slice_.rows / max(evaluation.subject.rows, 1))} of rows)"
        high = _upper_end(slice_.auc, errors)
        if high is not None:
            yield (
                _above(f"AUC, upper end: {slice_.kind}, {slice_.value}", high, SLICE_AUC, "look"),
                f"The model ranks hardly better than chance for {where}: AUC {with_interval(slice_.auc)}.",
            )
        yield (
            _at_most(
                f"mean prediction off by: {slice_.kind}, {slice_.value}",
                _least_distance(slice_, errors),
                SLICE_LIMIT,
                "look",
            ),
            f"Predictions for {where} are {percent(slice_.prediction_mean)} on average, but "
            f"{percent(slice_.label_mean)} of the rows are positive.",
        )


def _upper_end(auc: Estimate, errors: float) -> float | None:
    """Widens the upper half of a 95 % interval to so many standard errors; None without an interval."""
    if auc.value is None or auc.high is None:
        return None
    return auc.value + (auc.high - auc.value) * errors / NormalDist().inv_cdf(0.975)


def _least_distance(slice_: Slice, errors: float) -> float:
    """Returns how far the mean prediction of a slice is from its share of positive rows, less what chance explains."""
    standard_error = math.sqrt(slice_.label_mean * (1 - slice_.label_mean) / slice_.rows)
    return max(abs(slice_.prediction_mean - slice_.label_mean) - errors * standard_error, 0.0)


def _strengths(evaluation: Evaluation) -> list[str]:
    if evaluation.subject.makes_lists:
        return _strengths_of_lists(evaluation)
    auc, ece = evaluation.metrics["auc"], evaluation.metrics["ece"]
    reasons = []
    if auc.value is not None:
        reasons.append(
            f"It ranks a positive row above a negative row in {percent(auc.value)} of all such pairs (chance: 50.0%)."
        )
    biases = biases_alone(evaluation)
    if biases is not None and biases.auc_gain.value is not None and (biases.auc_gain.low or 0) > 0:
        reasons.append(
            f"The vectors improve on biases alone: AUC {signed(biases.auc_gain.value)}, log loss "
            f"{signed(-(biases.log_loss_gain.value or 0))}."
        )
    if ece.value is not None and ece.value <= ECE_LIMIT:
        reasons.append(f"Probabilities are calibrated: off by {percent(ece.value)} on average.")
    return reasons


def _strengths_of_lists(evaluation: Evaluation) -> list[str]:
    assert evaluation.ranking is not None
    model, *others = evaluation.ranking.rankers
    at = model.at[0]
    reasons = []
    if at.hit_rate.value is not None:
        reasons.append(f"{percent(at.hit_rate.value)} of users find something among the first {at.k} items.")
    titles = {"popularity": "popularity alone", "other export": "the other export"}
    for other in others:
        gain = gain_in_ndcg(model, other)
        if other.name in titles and gain.value is not None and (gain.low or 0) > 0:
            reasons.append(f"The lists improve on {titles[other.name]}: NDCG@{at.k} {signed(gain.value)}.")
    return reasons


def _about(evaluation: Evaluation) -> str:
    sampled = of_sample(evaluation.subject)
    about = [_about_model(evaluation), sentence(f"measured on {sampled}") if sampled else ""]
    return " ".join(filter(None, about))


def _about_model(evaluation: Evaluation) -> str:
    if not evaluation.subject.before_refit:
        return ""
    return (
        "Measured: the model before the refit, which has not been trained on these rows. The model that is served, "
        "`export/`, was then trained on these rows too. It should be at least as good, but these rows cannot show it."
    )


def _use(evaluation: Evaluation) -> str:
    """Says whether the model finds items among all, or only orders candidates, by its ranking beside popularity."""
    if evaluation.ranking is None:
        return ""
    rankers = {ranker.name: ranker for ranker in evaluation.ranking.rankers if ranker.at}
    if "model" not in rankers or "popularity" not in rankers:
        return ""
    model, popularity = rankers["model"], rankers["popularity"]
    gain = gain_in_ndcg(model, popularity)
    if gain.value is None:
        return ""
    at, of_popularity = model.at[0], popularity.at[0]
    compared = f"NDCG@{at.k} {number(at.ndcg.value, 3)} against {number(of_popularity.ndcg.value, 3)}"
    if (gain.value if gain.low is None else gain.low) > 0:
        return f"Among all items that a user has not seen, it finds more than popularity alone ({compared})."
    how_much = "more" if (gain.value if gain.high is None else gain.high) < 0 else "about as much"
    return (
        "Use it to order candidates, not to find them among all items: popularity alone finds "
        f"{how_much} there ({compared})."
    )
