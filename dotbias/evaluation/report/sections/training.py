"""Shows how training went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from dotbias.evaluation.formats import number
from dotbias.evaluation.report.charts import chart, drawn
from dotbias.evaluation.report.page import figure, joined, paragraph, side_by_side
from dotbias.evaluation.report.style import BLUE, GREEN, ORANGE

# Measured in training, see `trainer.loop.ranking`.
NDCG = "ndcg@20"


def training_section(metrics: Mapping[str, Any]) -> Markup:
    """Makes the learning curves; `metrics` is `metrics.json`, empty for an export that was copied without it."""
    train = metrics.get("train", {})
    epochs = train.get("epochs")
    if not epochs:
        return paragraph(
            "There is no metrics.json beside the export, so it is not known how the model was trained.", "soft"
        )
    best = train.get("best_epoch")
    curves = [
        _curve(
            epochs,
            "auc",
            "AUC",
            best,
            "Higher is better. Eval should rise and level off. If train keeps rising while eval falls, the model "
            "overfits: use more l2 or a smaller dimension. If both are low and flat, the ids say little about the "
            "label.",
        ),
        _curve(
            epochs,
            "label-crossentropy",
            "Cross-entropy of labels",
            best,
            "Lower is better. This is the training loss. With soft labels it does not reach 0, even for a perfect "
            "model.",
        ),
    ]
    if NDCG in epochs[0]["eval"]:
        curves = [
            _curve(epochs, NDCG, "NDCG@20", best, "Higher is better. All items are ranked for a sample of eval users."),
            *([] if "softmax-crossentropy" not in epochs[0]["eval"] else [_of_softmax(epochs, best)]),
        ]
    refit = train.get("refit")
    told = [_length(epochs, best)]
    if train.get("stopped_early"):
        told.append("Training stopped early, since eval no longer improved.")
    elif best == epochs[-1]["epoch"]:
        told.append("Eval still improved at the end, so more epochs may help.")
    if refit:
        told.append(
            f"Then the model was trained again from the start (refit) on all {refit['rows']:,} rows, train and eval, "
            f"for {_epochs(refit['epochs'])}. The export is that model."
        )
    return joined([paragraph(" ".join(told)), side_by_side(*curves)])


def _length(epochs: list[dict[str, Any]], best: float | None) -> str:
    if not _by_rows(epochs):
        return f"{_epochs(epochs)}; the {_ordinal(int(best))} was the best on eval." if best else f"{_epochs(epochs)}."
    text = f"{_epochs(epochs)}, {epochs[-1]['rows']:,} rows in all, measured {len(epochs)} times"
    rows = next((record["rows"] for record in epochs if record["epoch"] == best), None)
    return f"{text}; best on eval after {rows:,} rows." if rows else f"{text}."


def _epochs(epochs: list[dict[str, Any]]) -> str:
    count = epochs[-1]["epoch"] if epochs else 0
    return "1 epoch" if count == 1 else f"{count:.3g} epochs"


def _by_rows(epochs: list[dict[str, Any]]) -> bool:
    """Returns whether the eval split was measured after a number of rows, not after each epoch."""
    return [record["epoch"] for record in epochs] != list(range(1, len(epochs) + 1))


def _of_softmax(epochs: list[dict[str, Any]], best: float | None) -> Markup:
    return _curve(
        epochs,
        "softmax-crossentropy",
        "Cross-entropy of items",
        best,
        "Lower is better. This is the training loss: -log of the probability of the item of a row. Train is "
        "the mean since the measurement before.",
    )


def _curve(epochs: list[dict[str, Any]], metric: str, title: str, best: float | None, look: str) -> Markup:
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
    whole = None if _by_rows(epochs) else "d"
    drawing.update_xaxes(tickformat=whole, rangemode="tozero" if len(epochs) < 2 else "normal")
    name = f"learning-{metric}"
    return figure(f"{title} by epoch", drawn(drawing, name), look, "; ".join(said))


def _ordinal(count: int) -> str:
    ending = "th" if count % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th")
    return f"{count}{ending}"
