"""What the report says of how well a model tells positive rows from negative ones."""

from __future__ import annotations

from markupsafe import Markup

from dotbias.evaluation.formats import interval, number, percent, signed, with_interval
from dotbias.evaluation.report.charts import add_line, drawn, unit_chart
from dotbias.evaluation.report.page import figure, joined, paragraph, side_by_side, table
from dotbias.evaluation.report.style import BLUE, GREY
from dotbias.evaluation.results import Curve, Estimate, Evaluation

# What each metric means, and its name for a reader.
_METRICS = {
    "auc": ("AUC", "share of (positive, negative) pairs in the right order; 0.5 is chance"),
    "pr-auc": ("PR-AUC", "average precision; the share of positive rows is chance"),
    "accuracy": ("accuracy", "at a probability of one half"),
    "log-loss": ("log loss", "nats; lower is better"),
    "brier": ("Brier score", "mean squared error of the probability; lower is better"),
    "ece": ("ECE", "mean distance of prediction and share of positive rows, by tenths"),
    "prediction_mean": ("mean prediction", "should be the share of positive rows"),
    "label_mean": ("positive", "share of rows"),
}


def quality_section(evaluation: Evaluation) -> Markup:
    """Metrics with intervals, baselines, ROC and PR."""
    subject = evaluation.subject
    rows = [
        [label, number(estimate.value), interval(estimate), Markup('<span class="meaning">{}</span>').format(meaning)]
        for name, (label, meaning) in _METRICS.items()
        if (estimate := evaluation.metrics.get(name)) is not None
    ]
    of = "new files" if subject.split is None else f"the {subject.split} split"
    return joined(
        [
            paragraph(
                f"{subject.rows:,} rows of {of}, {subject.positives:,} of them positive, by {subject.users:,} users. "
                f"Intervals are of 95%, from {subject.resamples:,} resamples of users, whose rows go together."
            ),
            table("Metrics", ["", "value", "95% interval", ""], rows),
            _baselines(evaluation),
            side_by_side(_roc(evaluation.roc, evaluation.metrics["auc"]), _pr(evaluation)),
        ]
    )


def _baselines(evaluation: Evaluation) -> Markup:
    rows = [["the model", *_quality(evaluation.metrics["auc"], evaluation.metrics["log-loss"]), "", ""]]
    rows += [
        [
            b.name,
            *_quality(b.auc, b.log_loss),
            _gain(b.auc_gain),
            _gain(b.log_loss_gain),
        ]
        for b in evaluation.baselines
    ]
    return joined(
        [
            table("Against simpler models", ["", "AUC", "log loss", "AUC gained over it", "log loss saved"], rows),
            paragraph(
                "The base rate predicts the same for all rows. Biases alone know which users like much and which items "
                "are liked, and nothing of who likes what: what the model gains over them is what its vectors are "
                "worth. An interval that lies above 0 is no chance.",
                "soft",
            ),
        ]
    )


def _quality(auc: Estimate, log_loss: Estimate) -> list[str]:
    return [number(auc.value), number(log_loss.value)]


def _gain(gain: Estimate) -> str:
    return f"{signed(gain.value)} ({interval(gain)})" if interval(gain) else signed(gain.value)


def _roc(roc: Curve, auc: Estimate) -> Markup:
    drawing = unit_chart("false positive rate", "true positive rate (recall)")
    hover = "of negative rows %{x:.1%}, of positive rows %{y:.1%}<extra></extra>"
    add_line(drawing, [0, 1], [0, 1], GREY, "chance", dash="dot")
    add_line(drawing, roc.x, roc.y, BLUE, "model", hover=hover)
    look = (
        "The farther above the diagonal, the better; the area below the curve is the AUC. A steep start means that the "
        "first rows of a ranking are nearly all positive."
    )
    return figure("ROC", drawn(drawing, "roc"), look, f"AUC {with_interval(auc)}")


def _pr(evaluation: Evaluation) -> Markup:
    drawing = unit_chart("recall", "precision")
    share = evaluation.metrics["label_mean"].value
    if share is not None:
        add_line(drawing, [0, 1], [share, share], GREY, "chance", dash="dot")
    hover = "recall %{x:.1%}, precision %{y:.1%}<extra></extra>"
    add_line(drawing, evaluation.pr.x, evaluation.pr.y, BLUE, "model", hover=hover)
    look = (
        "Precision is the share of positive rows among those above a threshold, recall how many of all positive rows "
        "are there. Read off what a threshold costs; the dotted line is what chance gets."
    )
    said = f"PR-AUC {with_interval(evaluation.metrics['pr-auc'])}, {percent(share)} of rows are positive"
    return figure("Precision and recall", drawn(drawing, "pr"), look, said)
