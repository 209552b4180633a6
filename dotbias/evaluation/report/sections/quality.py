"""Shows how well the model separates positive rows from negative rows."""

from __future__ import annotations

from markupsafe import Markup

from dotbias.evaluation.formats import interval, number, of_sample, percent, signed, with_interval
from dotbias.evaluation.report.charts import add_line, drawn, unit_chart
from dotbias.evaluation.report.page import figure, joined, paragraph, side_by_side, table, tables_in_a_row
from dotbias.evaluation.report.style import BLUE, GREY
from dotbias.evaluation.results import Curve, Estimate, Evaluation

# Name and meaning of each metric, as the page shows them.
_METRICS = {
    "auc": ("AUC", "share of pairs of a positive and a negative row in the right order; 0.5 is chance, 1 is perfect"),
    "pr-auc": ("PR-AUC", "average precision; chance is the share of positive rows"),
    "accuracy": ("accuracy", "share of rows on the right side of a probability of 0.5"),
    "log-loss": ("log loss", "in nats; lower is better"),
    "brier": ("Brier score", "mean squared error of the probability; lower is better"),
    "ece": ("ECE", "mean distance between prediction and share of positive rows, by tenths; lower is better"),
    "prediction_mean": ("mean prediction", "should equal the share of positive rows"),
    "label_mean": ("positive rows", "share of all rows"),
}

_BASELINES = (
    "The base rate predicts the same probability for all rows. Biases alone know how often a user is positive and how "
    "often an item is, but not which user likes which item. The gain over them is what the vectors add; positive is "
    "better. If the whole interval is above 0, the gain is not chance."
)


def quality_section(evaluation: Evaluation) -> Markup:
    """Makes the metrics with intervals, the baselines, and the ROC and PR curves."""
    subject = evaluation.subject
    rows = [
        [label, number(estimate.value), interval(estimate), Markup('<span class="meaning">{}</span>').format(meaning)]
        for name, (label, meaning) in _METRICS.items()
        if (estimate := evaluation.metrics.get(name)) is not None
    ]
    of = "new files" if subject.split is None else f"the {subject.split} split"
    sampled = f", {text}" if (text := of_sample(subject)) else ""
    return joined(
        [
            paragraph(
                f"Measured on {subject.rows:,} rows of {of}, {subject.positives:,} of them positive, by "
                f"{subject.users:,} users{sampled}. "
                f"The 95% intervals come from {subject.resamples:,} bootstrap resamples of users. "
                "All metrics compare with positive or not, also where the training label is soft."
            ),
            tables_in_a_row(table("Metrics", ["", "value", "95% interval", ""], rows), _baselines(evaluation)),
            paragraph(_BASELINES, "soft"),
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
    return table("Against simpler models", ["", "AUC", "log loss", "gain in AUC", "gain in log loss"], rows)


def _quality(auc: Estimate, log_loss: Estimate) -> list[str]:
    return [number(auc.value), number(log_loss.value)]


def _gain(gain: Estimate) -> str:
    return f"{signed(gain.value)} ({interval(gain)})" if interval(gain) else signed(gain.value)


def _roc(roc: Curve, auc: Estimate) -> Markup:
    drawing = unit_chart("false positive rate", "true positive rate (recall)")
    hover = "%{x:.1%} of negative rows, %{y:.1%} of positive rows<extra></extra>"
    add_line(drawing, [0, 1], [0, 1], GREY, "chance", dash="dot")
    add_line(drawing, roc.x, roc.y, BLUE, "model", hover=hover)
    look = (
        "Farther above the diagonal is better; the area below the curve is the AUC. A steep start means that nearly "
        "all rows at the top of the ranking are positive."
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
        "Precision is the share of positive rows among the rows above a threshold. Recall is the share of all positive "
        "rows that are above it. Each point is a threshold. The dotted line is chance."
    )
    said = f"PR-AUC {with_interval(evaluation.metrics['pr-auc'])}, {percent(share)} of rows are positive"
    return figure("Precision and recall", drawn(drawing, "pr"), look, said)
