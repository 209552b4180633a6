"""Shows how close probabilities are to the shares of positive rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

from dotbias.evaluation.formats import number, percent
from dotbias.evaluation.report.charts import add_line, chart, drawn, error_bars, unit_chart
from dotbias.evaluation.report.page import figure, folded, joined, paragraph, side_by_side, table
from dotbias.evaluation.report.style import BLUE, GREY, ORANGE
from dotbias.evaluation.results import CalibrationBin, Estimate, Evaluation

# 97.5 % quantile of the normal distribution.
_Z = 1.96


def calibration_section(evaluation: Evaluation, fitted_here: bool) -> Markup:
    """Makes the reliability curve and the histogram; `fitted_here` if the calibration was fitted on these rows."""
    bins = evaluation.calibration
    if not bins:
        return paragraph("There are no rows to compare predictions with.", "soft")
    ece = evaluation.metrics["ece"]
    told = (
        f"On average, predictions differ from the share of positive rows by {percent(ece.value)} (expected calibration "
        "error, ECE)."
    )
    if fitted_here:
        told += (
            " The two parameters of the map from logit to probability were fitted on these rows, so the error on new "
            "rows is slightly larger."
        )
    rows = [
        [
            f"{number(b.low, 3)} to {number(b.high, 3)}",
            f"{b.rows:,}",
            number(b.prediction_mean, 3),
            number(b.label_mean, 3),
        ]
        for b in bins
    ]
    header = ["predictions", "rows", "mean prediction", "share positive"]
    return joined(
        [
            paragraph(told),
            side_by_side(_reliability(bins, ece), _histogram(bins)),
            folded("Table of these numbers", table("Reliability by tenths of the rows", header, rows)),
        ]
    )


def _reliability(bins: list[CalibrationBin], ece: Estimate) -> Markup:
    drawing = unit_chart("mean prediction of a tenth of the rows", "share of positive rows")
    add_line(drawing, [0, 1], [0, 1], GREY, "perfect", dash="dot")
    shares = [Estimate(value=b.label_mean, low=low, high=high) for b in bins for low, high in [_wilson(b)]]
    drawing.add_trace(
        go.Scatter(
            x=[b.prediction_mean for b in bins],
            y=[b.label_mean for b in bins],
            error_y=error_bars(shares),
            name="model, with 95% interval",
            mode="lines+markers",
            line={"color": BLUE, "width": 2},
            marker={"size": 8},
            customdata=[b.rows for b in bins],
            hovertemplate="predicted %{x:.1%}, positive %{y:.1%} of %{customdata:,} rows<extra></extra>",
        )
    )
    look = (
        "Points should lie on the dotted line: where the model predicts 70%, 70% of the rows should be positive. Above "
        "the line, predictions are too low; below it, too high. A curve that is flatter than the line is a sign of "
        "overfitting."
    )
    said = "; ".join(f"predicted {percent(b.prediction_mean, 0)}, positive {percent(b.label_mean, 0)}" for b in bins)
    return figure("Reliability", drawn(drawing, "reliability"), look, f"ECE {number(ece.value)}; {said}")


def _wilson(bin_: CalibrationBin) -> tuple[float, float]:
    """Computes the 95 % interval of a share (E. Wilson, 1927), as if rows were independent of each other."""
    n, p = bin_.rows, bin_.label_mean
    center = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * float(np.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2)))
    return max(center - half, 0.0), min(center + half, 1.0)


def _histogram(bins: list[CalibrationBin]) -> Markup:
    total = sum(b.rows for b in bins)
    # The gap between the largest value of a tenth and the smallest of the next is split between them.
    edges = [bins[0].low, *((a.high + b.low) / 2 for a, b in pairwise(bins)), bins[-1].high]
    widths = np.maximum(np.diff(edges), 1e-6)
    drawing = chart("prediction", "share of rows per 1%")
    drawing.update_xaxes(range=[0, 1], tickformat=".0%")
    drawing.update_yaxes(tickformat=".1%", rangemode="tozero")
    drawing.add_trace(
        go.Bar(
            x=edges[:-1],
            y=[b.rows / total / (100 * width) for b, width in zip(bins, widths, strict=True)],
            width=widths,
            offset=0,
            marker={"color": BLUE, "line": {"width": 1, "color": "rgba(128,134,143,.6)"}},
            customdata=[[b.rows, b.low, b.high] for b in bins],
            hovertemplate="%{customdata[0]:,} rows from %{customdata[1]:.1%} to %{customdata[2]:.1%}<extra></extra>",
        )
    )
    mean = sum(b.rows * b.label_mean for b in bins) / total
    drawing.add_vline(x=mean, line={"color": ORANGE, "dash": "dot", "width": 2})
    drawing.add_annotation(
        x=mean, y=1, yref="paper", text="share positive", showarrow=False, yanchor="top", xanchor="left"
    )
    look = (
        "Each bar holds a tenth of the rows; its height is the share of rows in each 1% of probability. A broad "
        "histogram means that the model separates rows. A spike at the share of positive rows means that it predicts "
        "about the same for all rows."
    )
    said = f"predictions from {percent(bins[0].low, 0)} to {percent(bins[-1].high, 0)}"
    return figure("Predictions", drawn(drawing, "predictions"), look, said)
