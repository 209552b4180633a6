"""What the report says of how the model learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from dotbias.evaluation.formats import number
from dotbias.evaluation.report.charts import chart, drawn
from dotbias.evaluation.report.page import figure, joined, paragraph, side_by_side
from dotbias.evaluation.report.style import BLUE, GREEN, ORANGE


def training_section(metrics: Mapping[str, Any]) -> Markup:
    """Learning curves from `metrics.json`, which is empty for an export that was copied alone."""
    train = metrics.get("train", {})
    epochs = train.get("epochs")
    if not epochs:
        return paragraph("There is no metrics.json beside the export that says how it was trained.", "soft")
    best = train.get("best_epoch")
    curves = [
        _curve(
            epochs,
            "auc",
            "AUC",
            best,
            "Higher is better. Eval should improve and level off. Train that goes on while eval gets worse is "
            "overfitting, which more l2 or a smaller dimension repairs; both poor and flat means that the ids tell "
            "little of the label.",
        ),
        _curve(
            epochs,
            "label-crossentropy",
            "Cross-entropy of labels",
            best,
            "Lower is better. This is what is trained on; with soft labels it does not fall to 0, not even for a model "
            "that knows all.",
        ),
    ]
    refit = train.get("refit")
    told = [f"{len(epochs)} epochs, the best for eval was the {_ordinal(best)}." if best else f"{len(epochs)} epochs."]
    if train.get("stopped_early"):
        told.append("Training stopped early, since eval no longer gained.")
    elif best == len(epochs):
        told.append("Eval still gained at the end: more epochs may bring more.")
    if refit:
        told.append(
            f"The export was then trained from the start on all {refit['rows']:,} rows, those of eval among them, for "
            f"{len(refit['epochs'])} epochs."
        )
    return joined([paragraph(" ".join(told)), side_by_side(*curves)])


def _curve(epochs: list[dict[str, Any]], metric: str, title: str, best: int | None, look: str) -> Markup:
    drawing = chart("epoch", title, showlegend=True)
    said = []
    for split, colour in (("train", BLUE), ("eval", ORANGE)):
        known = [(e["epoch"], e[split][metric]) for e in epochs if (e.get(split) or {}).get(metric) is not None]
        if known:
            x, y = zip(*known, strict=True)
            drawing.add_trace(
                go.Scatter(
                    x=x,
                    y=y,
                    name=split,
                    mode="lines+markers",
                    line={"color": colour, "width": 2},
                    hovertemplate="epoch %{x}: %{y:.4f}<extra>" + split + "</extra>",
                )
            )
            said.append(f"{split} from {number(y[0])} to {number(y[-1])}")
    if best is not None:
        drawing.add_vline(x=best, line={"color": GREEN, "dash": "dot", "width": 1.5})
        drawing.add_annotation(
            x=best, y=1, yref="paper", text="best", showarrow=False, yanchor="top", xanchor="right", xshift=-4
        )
    drawing.update_xaxes(tickformat="d", rangemode="tozero" if len(epochs) < 2 else "normal")
    name = f"learning-{metric}"
    return figure(f"{title} by epoch", drawn(drawing, name), look, "; ".join(said))


def _ordinal(count: int) -> str:
    ending = "th" if count % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th")
    return f"{count}{ending}"
