"""What all charts of the report share: their look, how they become part of a page, and how numbers are written."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from markupsafe import Markup

from dotbias.evaluation.report.style import GREY
from dotbias.evaluation.results import Estimate

Array = npt.NDArray[Any]

HEIGHT = 340
# Pinching and dragging belong to the page; a chart in a report is read, and hovered over.
_CONFIG = {"responsive": True, "displayModeBar": False, "scrollZoom": False, "doubleClick": False}


def chart(x_title: str, y_title: str, **layout: Any) -> go.Figure:
    """An empty figure; `layout` adds to the look, or replaces it."""
    axis: dict[str, Any] = {"fixedrange": True, "automargin": True, "zeroline": False, "title": {"standoff": 8}}
    # Invisible ticks keep the labels of both axes apart where they meet.
    axis |= {"ticks": "outside", "ticklen": 5, "tickcolor": "rgba(0,0,0,0)"}
    figure = go.Figure(
        layout={
            "template": "none",
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, sans-serif", "size": 13},
            "margin": {"l": 8, "r": 22, "t": 8, "b": 8},
            "dragmode": False,
            "hovermode": "closest",
            "hoverlabel": {"bgcolor": "#262a33", "bordercolor": GREY, "font": {"color": "#ffffff"}},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
            "xaxis": axis,
            "yaxis": axis,
        }
    )
    figure.update_xaxes(title_text=x_title)
    figure.update_yaxes(title_text=y_title)
    figure.update_layout(**layout)
    return figure


def unit_chart(x_title: str, y_title: str) -> go.Figure:
    """Both axes from 0 to 1, shown as percent."""
    drawing = chart(x_title, y_title, showlegend=True)
    drawing.update_xaxes(range=[0, 1], tickformat=".0%")
    drawing.update_yaxes(range=[0, 1.02], tickformat=".0%")
    return drawing


def add_line(
    drawing: go.Figure,
    x: Sequence[float],
    y: Sequence[float],
    colour: str,
    name: str,
    dash: str = "solid",
    hover: str = "",
) -> None:
    """A line through points; `hover` is Plotly's template of what is said of one."""
    more = {"hovertemplate": hover} if hover else {"hoverinfo": "skip"}
    line = {"color": colour, "width": 2, "dash": dash}
    drawing.add_trace(go.Scatter(x=x, y=y, name=name, mode="lines", line=line, **more))


def drawn(figure: go.Figure, name: str, height: int = HEIGHT) -> Markup:
    """A figure as part of a page that holds plotly.js; `name` becomes its id there."""
    part = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        include_mathjax=False,
        config=_CONFIG,
        div_id=f"chart-{name}",
        default_height=f"{height}px",
    )
    # Plotly writes data as JSON without a "<" in it.
    return Markup(part)  # noqa: S704


def logarithmic(values: Array) -> dict[str, Any]:
    """An axis for values above 0: labels at the powers of ten, where there are enough of them."""
    decades = len(values) > 0 and values.max() >= 100 * values.min()
    return {"type": "log", "dtick": 1} if decades else {"type": "log"}


def plain(text: str) -> str:
    """Text that Plotly shows as it is: it takes <b> and the like for markup."""
    return html.escape(text, quote=False)


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def log_spaced(size: int, points: int = 200) -> npt.NDArray[np.int64]:
    """Indices in [0, size), all of the first ones and then ever fewer, as they lie evenly on a logarithmic axis."""
    if size <= 0:
        return np.zeros(0, np.int64)
    return np.unique(np.geomspace(1, size, points).round().astype(np.int64)) - 1


def error_bars(estimates: Sequence[Estimate]) -> dict[str, Any]:
    """Plotly's error bars from the intervals of estimates with a value; none where there is no interval."""
    above = [0.0 if e.high is None else e.high - (e.value or 0.0) for e in estimates]
    below = [0.0 if e.low is None else (e.value or 0.0) - e.low for e in estimates]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.5, "width": 3}
