"""What the report says of parts of the rows."""

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
    """A chart of AUC with intervals for each kind of slice, and a table of all that is known of slices."""
    shown = [part for part in evaluation.slices if part.auc.value is not None]
    if not shown:
        return joined([paragraph("No slice has enough rows of both classes for an AUC.", "soft"), _table(evaluation)])
    overall = evaluation.metrics["auc"].value
    ends = [end for part in shown for end in (part.auc.low, part.auc.value, part.auc.high) if end is not None]
    # The same for all kinds, so that they can be compared, and with room for the marks at its ends.
    scale = min(*ends, 0.5) - 0.02, min(max(*ends, overall or 0.5) + 0.02, 1.02)
    kinds = dict.fromkeys(part.kind for part in shown)
    charts = [
        _chart(kind, number, [part for part in shown if part.kind == kind], overall, scale, evaluation.subject.rows)
        for number, kind in enumerate(kinds)
    ]
    return joined(
        [
            paragraph(
                "AUC with its 95% interval for parts of the rows. The dotted line is all rows. An interval that lies "
                "wholly to the left of it: there the model is worse than elsewhere. One that reaches 0.5: there it may "
                "not rank at all. Rare and unknown ids are expected to be worse; popular ones should not be."
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
            x=[part.auc.value for part in slices],
            y=list(range(len(slices))),
            error_x=error_bars([part.auc for part in slices]),
            mode="markers",
            marker={"color": BLUE, "size": 9},
            customdata=[[with_interval(part.auc), part.rows] for part in slices],
            hovertemplate="AUC %{customdata[0]}, %{customdata[1]:,} rows<extra></extra>",
            showlegend=False,
        )
    )
    if overall is not None:
        drawing.add_vline(x=overall, line={"color": GREY, "dash": "dot", "width": 1.5})
    # Above its mark, a name may be as long as the chart is wide, on a phone too.
    for row, part in enumerate(slices):
        text = f"{shortened(part.value, 37)}, {percent(part.rows / max(rows, 1))} of rows"
        drawing.add_annotation(
            x=0, xref="paper", xanchor="left", y=row, yshift=13, text=plain(text), showarrow=False, font_size=12
        )
    drawing.update_xaxes(range=scale)
    drawing.update_yaxes(range=[len(slices) - 0.5, -0.75], visible=False)
    said = "; ".join(f"{part.value}: {with_interval(part.auc)}" for part in slices)
    height = _AXIS_HEIGHT + _ROW_HEIGHT * len(slices)
    return figure(kind, drawn(drawing, f"slices-{position}", height), "", said)


def _table(evaluation: Evaluation) -> Markup:
    rows = [
        [
            f"{part.kind}: {part.value}",
            f"{part.rows:,}",
            percent(part.rows / max(evaluation.subject.rows, 1)),
            number(part.auc.value),
            interval(part.auc) or part.note,
            number(part.log_loss.value),
            percent(part.prediction_mean),
            percent(part.label_mean),
        ]
        for part in evaluation.slices
    ]
    header = ["", "rows", "of all", "AUC", "95% interval", "log loss", "mean prediction", "positive"]
    return folded("All slices in numbers", table("Slices", header, rows))
