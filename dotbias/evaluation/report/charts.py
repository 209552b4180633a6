"""Makes charts for the report: look, axes, lines, and HTML."""

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
# No zooming: on a phone, a drag on a chart should scroll the page.
_CONFIG = {"responsive": True, "displayModeBar": False, "scrollZoom": False, "doubleClick": False}


def chart(x_title: str, y_title: str, **layout: Any) -> go.Figure:
    """Makes an empty figure; `layout` adds to the look or replaces parts of it."""
    axis: dict[str, Any] = {"fixedrange": True, "automargin": True, "zeroline": False, "title": {"standoff": 8}}
    # Invisible ticks keep the labels of the two axes apart in the corner.
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
    """Makes an empty figure whose axes go from 0 to 1, in percent."""
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
    """Adds a line through points; `hover` is Plotly's template of the text at a point, empty for no text."""
    more = {"hovertemplate": hover} if hover else {"hoverinfo": "skip"}
    line = {"color": colour, "width": 2, "dash": dash}
    drawing.add_trace(go.Scatter(x=x, y=y, name=name, mode="lines", line=line, **more))


def drawn(figure: go.Figure, name: str, height: int = HEIGHT) -> Markup:
    """Renders a figure for a page that has plotly.js; its id on the page is `chart-<name>`."""
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
    """Makes a logarithmic axis for values above 0, with labels at powers of ten if the values span two of them."""
    decades = len(values) > 0 and values.max() >= 100 * values.min()
    return {"type": "log", "dtick": 1} if decades else {"type": "log"}


def plain(text: str) -> str:
    """Escapes text for Plotly, which takes <b> and the like for markup."""
    return html.escape(text, quote=False)


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def log_spaced(size: int, points: int = 200) -> npt.NDArray[np.int64]:
    """Picks indices in [0, size) that are evenly spaced on a logarithmic axis, starting with all of the first."""
    if size <= 0:
        return np.zeros(0, np.int64)
    return np.unique(np.geomspace(1, size, points).round().astype(np.int64)) - 1


def error_bars(estimates: Sequence[Estimate]) -> dict[str, Any]:
    """Makes Plotly's error bars from intervals; an estimate without an interval gets a bar of length 0."""
    above = [0.0 if e.high is None else e.high - (e.value or 0.0) for e in estimates]
    below = [0.0 if e.low is None else (e.value or 0.0) - e.low for e in estimates]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.5, "width": 3}
