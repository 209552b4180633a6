"""Shows the quality on slices of the rows."""

from __future__ import annotations

import plotly.graph_objects as go
from markupsafe import Markup

from dotbias.evaluation.formats import interval, number, percent, with_interval
from dotbias.evaluation.report.charts import chart, drawn, error_bars, plain, shortened
from dotbias.evaluation.report.page import figure, folded, joined, paragraph, side_by_side, table
from dotbias.evaluation.report.style import BLUE, GREY
from dotbias.evaluation.results import Evaluation, Slice

_ROW_HEIGHT, _AXIS_HEIGHT = 40, 75


def slices_section(evaluation: Evaluation) -> Markup:
    """Makes a chart of AUC with intervals for each kind of slice, and a table of all numbers."""
    shown = [slice_ for slice_ in evaluation.slices if slice_.auc.value is not None]
    if not shown:
        return joined([paragraph("No slice has enough rows of both classes for an AUC.", "soft"), _table(evaluation)])
    overall = evaluation.metrics["auc"].value
    ends = [end for slice_ in shown for end in (slice_.auc.low, slice_.auc.value, slice_.auc.high) if end is not None]
    # One scale for all charts, so that they can be compared, with room for the marks at the ends.
    scale = min(*ends, 0.5) - 0.02, min(max(*ends, overall or 0.5) + 0.02, 1.02)
    kinds = dict.fromkeys(slice_.kind for slice_ in shown)
    charts = [
        _chart(
            kind, number, [slice_ for slice_ in shown if slice_.kind == kind], overall, scale, evaluation.subject.rows
        )
        for number, kind in enumerate(kinds)
    ]
    return joined(
        [
            paragraph(
                "AUC with its 95% interval on slices of the rows. The dotted line is the AUC of all rows. If the whole "
                "interval is left of the line, the model ranks worse there than elsewhere. If the interval reaches "
                "0.5, the rows of the slice do not show that the model ranks better than chance; with many slices, "
                "some intervals do so by chance. Rare and unknown ids are expected to be worse; popular ids are not."
            ),
            side_by_side(*charts),
            _table(evaluation),
        ]
    )


def _chart(
    kind: str, position: int, slices: list[Slice], overall: float | None, scale: tuple[float, float], rows: int
) -> Markup:
    drawing = chart("AUC", "")
    drawing.add_trace(
        go.Scatter(
            x=[slice_.auc.value for slice_ in slices],
            y=list(range(len(slices))),
            error_x=error_bars([slice_.auc for slice_ in slices]),
            mode="markers",
            marker={"color": BLUE, "size": 9},
            customdata=[[with_interval(slice_.auc), slice_.rows] for slice_ in slices],
            hovertemplate="AUC %{customdata[0]}, %{customdata[1]:,} rows<extra></extra>",
            showlegend=False,
        )
    )
    if overall is not None:
        drawing.add_vline(x=overall, line={"color": GREY, "dash": "dot", "width": 1.5})
    # Names stand above their marks, where they have the width of the chart, also on a phone.
    for row, slice_ in enumerate(slices):
        text = f"{shortened(slice_.value, 37)}, {percent(slice_.rows / max(rows, 1))} of rows"
        drawing.add_annotation(
            x=0, xref="paper", xanchor="left", y=row, yshift=13, text=plain(text), showarrow=False, font_size=12
        )
    drawing.update_xaxes(range=scale)
    drawing.update_yaxes(range=[len(slices) - 0.5, -0.75], visible=False)
    said = "; ".join(f"{slice_.value}: {with_interval(slice_.auc)}" for slice_ in slices)
    height = _AXIS_HEIGHT + _ROW_HEIGHT * len(slices)
    return figure(kind, drawn(drawing, f"slices-{position}", height), "", said)


def _table(evaluation: Evaluation) -> Markup:
    rows = [
        [
            f"{slice_.kind}: {slice_.value}",
            f"{slice_.rows:,}",
            percent(slice_.rows / max(evaluation.subject.rows, 1)),
            number(slice_.auc.value),
            interval(slice_.auc) or slice_.note,
            number(slice_.log_loss.value),
            percent(slice_.prediction_mean),
            percent(slice_.label_mean),
        ]
        for slice_ in evaluation.slices
    ]
    header = ["", "rows", "of all", "AUC", "95% interval", "log loss", "mean prediction", "positive rows"]
    return folded("Table of all slices", table("Slices", header, rows))
