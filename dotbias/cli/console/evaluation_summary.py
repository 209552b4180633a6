"""Writes the summary of an evaluation: the metrics and the baselines; `evaluation.json` has the rest."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from dotbias.cli.console.summary import section
from dotbias.evaluation.formats import MISSING, of_sample
from dotbias.evaluation.results import (
    EVALUATION_NAME,
    SLICES_NAME,
    Estimate,
    Evaluation,
    Ranking,
    RankingAtK,
    Slice,
    Subject,
)
from dotbias.evaluation.verdict import Verdict, biases_alone, sentence, verdict
from pipeline.manifest import join

_WIDTH = 120
# Of metrics, as in the section above.
_NAME_WIDTH = 15
_RANKERS = {
    "popularity": "most popular first",
    "other export": "other export",
    "fold-in": "users by their items alone",
}
_LIST_METRICS: dict[str, Callable[[RankingAtK], Estimate]] = {
    "recall": lambda at: at.recall,
    "ndcg": lambda at: at.ndcg,
    "hit-rate": lambda at: at.hit_rate,
    "mrr": lambda at: at.mrr,
}
_ITEM_METRICS: dict[str, Callable[[RankingAtK], float | None]] = {
    "coverage": lambda at: at.coverage,
    "popularity": lambda at: at.popularity,
    "popular": lambda at: at.popular_share,
    "novelty": lambda at: at.novelty,
}


def evaluation_summary(evaluation: Evaluation, directory: str, seconds: float | None, page: str | None) -> str:
    """Returns the text; it ends with a line end.

    Args:
        evaluation: the measurements.
        directory: where its files are.
        seconds: how long it took; None if an earlier start measured it.
        page: the path of the report, None if there is none.
    """
    lines = section("Skipped", ["evaluate: already done by an earlier start"] if seconds is None else [])
    lines += section("Evaluated", _subject(evaluation.subject))
    if not evaluation.subject.makes_lists:
        lines += section("Metrics", _metrics(evaluation))
        lines += section("Gain", _gains(evaluation))
        lines += section("Slices", _slices(evaluation.slices))
    lines += section("Ranking", _ranking(evaluation.ranking) if evaluation.ranking else [])
    if evaluation.subject.makes_lists and evaluation.ranking:
        lines += section("Slices", _list_slices(evaluation.ranking))
    decided = verdict(evaluation)
    lines += section("Verdict", [decided.headline, *_wrapped(decided.reasons)])
    # Warnings that decide are among the reasons of the verdict already.
    for warning in evaluation.warnings:
        if sentence(warning.text) not in decided.reasons:
            lines += section("Warning", _wrapped([sentence(warning.text)]))
    lines += section("Seconds", [f"evaluate {seconds:.1f}"] if seconds is not None else [])
    files = [f"all     {join(directory, EVALUATION_NAME)}", f"slices  {join(directory, SLICES_NAME)}"]
    lines += section("Files", files if page is None else [*files, f"report  {page}"])
    return "\n".join(lines) + "\n"


def verdict_lines(decided: Verdict, evaluation: Evaluation) -> list[str]:
    """Returns the verdict, its numbers and its reasons, in a few lines."""
    sampled = of_sample(evaluation.subject)
    said = [f"on {sampled}"] if sampled else []
    if evaluation.subject.makes_lists:
        return [decided.headline, *_lists(evaluation), *said, *_wrapped(decided.reasons)]
    lines = [decided.headline, f"auc {_estimate(evaluation.metrics['auc'])}, {_of_model(evaluation.subject)}"]
    if biases := biases_alone(evaluation):
        lines.append(f"auc {_estimate(biases.auc_gain, '+')} over biases alone")
    return [*lines, *said, *_wrapped(decided.reasons)]


def _lists(evaluation: Evaluation) -> list[str]:
    if evaluation.ranking is None:
        return []
    model, popularity = (ranker.at[0] for ranker in evaluation.ranking.rankers[:2])
    return [
        f"ndcg@{model.k} {_estimate(model.ndcg)}, {_of_model(evaluation.subject)}",
        f"ndcg@{model.k} {_estimate(popularity.ndcg)} of the most popular items",
    ]


def _wrapped(sentences: list[str]) -> list[str]:
    return [line for text in sentences for line in textwrap.wrap(text, _WIDTH - 12)]


def _of_model(subject: Subject) -> str:
    return "of the model before the refit" if subject.before_refit else "of the export"


def _subject(subject: Subject) -> list[str]:
    what = f"{subject.split} rows" if subject.split else f"rows of {', '.join(file.path for file in subject.files)}"
    lines = [
        f"{subject.export}",
        f"on {subject.rows:,} {what}: {subject.users:,} users, {subject.positives / subject.rows:.1%} positive",
    ]
    if subject.before_refit:
        lines.append(
            "before the refit; the served model was also trained on the eval rows, and should be at least as good"
        )
    if sampled := of_sample(subject):
        lines.append(sampled)
    return lines + [f"{rows:,} rejected: {reason}" for reason, rows in subject.rejected_by_reason.items()]


def _metrics(evaluation: Evaluation) -> list[str]:
    lines = [f"{name:<15}  {_estimate(value)}" for name, value in evaluation.metrics.items()]
    if any(value.low is not None for value in evaluation.metrics.values()):
        lines.append(f"with 95% intervals from {evaluation.subject.resamples:,} resamples of users")
    return [*lines, "compared with positive or not; training compares with the label, which may lie between 0 and 1"]


def _gains(evaluation: Evaluation) -> list[str]:
    return [
        line
        for baseline in evaluation.baselines
        for line in (
            f"over {baseline.name:<12}  auc       {_estimate(baseline.auc_gain, '+')}",
            f"{'':<17}  log-loss  {_estimate(baseline.log_loss_gain, '+')}",
        )
    ]


def _slices(slices: list[Slice]) -> list[str]:
    """Shows warm and cold ids, and the slice with the lowest AUC of each other kind."""
    shown: list[Slice] = []
    for kind in dict.fromkeys(slice_.kind for slice_ in slices):
        of_kind = [slice_ for slice_ in slices if slice_.kind == kind]
        measured = [slice_ for slice_ in of_kind if slice_.auc.value is not None]
        if kind.endswith("warm or cold"):
            shown += of_kind
        elif measured:
            shown.append(min(measured, key=lambda slice_: slice_.auc.value or 0.0))
    names = [f"{slice_.kind}: {slice_.value}" for slice_ in shown]
    width = max(map(len, names), default=0)
    return [
        f"{name:<{width}}  {slice_.rows:>11,} rows  {slice_.note or 'auc ' + _estimate(slice_.auc)}"
        for name, slice_ in zip(names, shown, strict=True)
    ]


def _ranking(ranking: Ranking) -> list[str]:
    sampled = "" if ranking.users == ranking.eligible else f", a random sample of {ranking.eligible:,}"
    model, *others = ranking.rankers
    rows = [("", "model", *(_RANKERS[other.name] for other in others))]
    for number, ours in enumerate(model.at):
        theirs = [other.at[number] for other in others]
        for name, measure in _LIST_METRICS.items():
            values = [_number(measure(at).value) for at in theirs]
            rows.append((f"{name}@{ours.k}", _estimate(measure(ours)), *values))
    rows.append(("mrr", _estimate(model.mrr), *(_number(other.mrr.value) for other in others)))
    for name, of_items in _ITEM_METRICS.items():
        values = [_number(of_items(ranker.at[0])) for ranker in ranking.rankers]
        rows.append((f"{name}@{model.at[0].k}", *values))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[0] = max(widths[0], _NAME_WIDTH)
    return [
        f"{ranking.users:,} users{sampled}, each all of {ranking.items:,} items but those seen in train",
        *("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows),
        *(
            f"ndcg@{other.gains[0].k} {_estimate(other.gains[0].ndcg, '+')} over {_RANKERS[other.name]}"
            for other in others
            if other.gains
        ),
    ]


def _list_slices(ranking: Ranking) -> list[str]:
    names = [f"{part.kind}: {part.value}" for part in ranking.slices]
    width = max(map(len, names), default=0)
    return [
        f"{name:<{width}}  {part.users:>9,} users  recall@{part.k} {_estimate(part.recall)}, "
        f"of popularity {_number(part.popularity_recall.value)}"
        for name, part in zip(names, ranking.slices, strict=True)
    ]


def _estimate(estimate: Estimate, sign: str = "") -> str:
    if estimate.low is None or estimate.high is None:
        return _number(estimate.value, sign)
    return f"{_number(estimate.value, sign)}  ({_number(estimate.low, sign)} to {_number(estimate.high, sign)})"


def _number(value: float | None, sign: str = "") -> str:
    return MISSING if value is None else f"{value:{sign}.4f}"
