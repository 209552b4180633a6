"""Makes `history.html`: the nights of an output root as a page with curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import plotly.graph_objects as go
from markupsafe import Markup

from dotbias.evaluation.formats import MISSING, number, percent, signed
from dotbias.evaluation.paired import Measured
from dotbias.evaluation.report.charts import chart, drawn, error_bars
from dotbias.evaluation.report.page import Section, bullets, figure, joined, page, paragraph, table
from dotbias.evaluation.report.style import BLUE, GREY, ORANGE
from dotbias.evaluation.results import Estimate
from dotbias.retraining.decision import Decision
from dotbias.retraining.gate import failures
from dotbias.retraining.history import HISTORY_NAME, METRIC_NAMES, History
from pipeline.manifest import join
from pipeline.storage.files import write_file


def history_page(history: History) -> str:
    """Builds the page, which needs no other file."""
    decisions = [night.decision for night in history.nights]
    champion = history.champion
    serving = "Nothing serves yet." if champion is None else f"{champion.run_id} serves, version {champion.version}."
    promoted = sum(decision.outcome == "promoted" for decision in decisions)
    summary = joined(
        [
            paragraph(f"{serving} {promoted} of {len(decisions)} nights promoted their model."),
            *([bullets(history.warnings)] if history.warnings else []),
        ]
    )
    sections = [Section("nights", "Nights", _nights(history))]
    if decisions:
        metrics = ("auc", "log_loss") if decisions[-1].metric == "auc" else ("ndcg",)
        sections = [
            Section("quality", "Quality", joined([_curve(decisions, metric) for metric in metrics])),
            Section("gains", "Challenger against champion", _gains(decisions)),
            *sections,
        ]
    return page("Retraining history", summary, sections, "Intervals are 95 %, from resampled users.")


def write_history(root: str, history: History) -> str:
    """Writes `history.html` at the output root; returns its path."""
    path = join(root, HISTORY_NAME)
    write_file(path, history_page(history).encode(), root)
    return path


def _curve(decisions: Sequence[Decision], metric: str) -> Markup:
    name = METRIC_NAMES[metric]
    drawing = chart("", name, showlegend=True)
    challengers = [(decision.run_id, getattr(decision.challenger_metrics, metric)) for decision in decisions]
    champions = [
        (decision.run_id, getattr(decision.champion_metrics, metric))
        for decision in decisions
        if decision.champion_metrics is not None
    ]
    _add(drawing, challengers, "challenger", BLUE)
    _add(drawing, champions, "champion", ORANGE)
    return figure(
        f"{name} by night",
        drawn(drawing, f"history-{metric}"),
        "Both models predict the same rows, the newest of each night. Bars are 95 % intervals.",
        f"{name} of challenger and champion on the eval rows of {len(decisions)} nights",
    )


def _gains(decisions: Sequence[Decision]) -> Markup:
    metric = decisions[-1].metric
    name = METRIC_NAMES[metric]
    drawing = chart("", f"gain in {name}", showlegend=True)
    for outcome, colour in (("promoted", BLUE), ("kept", GREY)):
        gains = [
            (decision.run_id, getattr(decision.gains, metric))
            for decision in decisions
            if decision.gains is not None and decision.outcome == outcome
        ]
        _add(drawing, gains, outcome, colour, mode="markers")
    drawing.add_hline(y=0, line={"color": GREY, "width": 1})
    return figure(
        f"Gain in {name} by night",
        drawn(drawing, "history-gains"),
        f"The challenger's {name} minus the champion's, on the same resamples of users.",
        "Gain of the challenger over the champion, with intervals",
    )


def _add(
    drawing: go.Figure, points: Sequence[tuple[str, Estimate]], name: str, colour: str, mode: str = "lines+markers"
) -> None:
    shown = [(run, estimate) for run, estimate in points if estimate.value is not None]
    drawing.add_trace(
        go.Scatter(
            x=[run for run, _ in shown],
            y=[estimate.value for _, estimate in shown],
            error_y=error_bars([estimate for _, estimate in shown]),
            name=name,
            mode=mode,
            line={"color": colour, "width": 2},
            marker={"color": colour, "size": 8},
            hovertemplate="%{x}: %{y:.4f}",
        )
    )


def _nights(history: History) -> Markup:
    if not history.nights:
        return paragraph("No run has decided yet.")
    metric = history.nights[-1].decision.metric

    def shown(measured: Measured | None, form: Callable[[float | None], str]) -> str:
        return MISSING if measured is None else form(getattr(measured, metric).value)

    rows = []
    for night in reversed(history.nights):
        decision = night.decision
        failed = [check.name for check in failures(decision.checks)]
        rows.append(
            (
                decision.run_id,
                f"{decision.train_rows:,}",
                f"{decision.eval_rows:,}",
                " ".join(percent(share) for share in decision.oov.values()),
                shown(decision.challenger_metrics, number),
                shown(decision.champion_metrics, number),
                shown(decision.gains, signed),
                shown(decision.refit_gains, signed),
                decision.outcome,
                ", ".join(failed) or "; ".join(decision.reasons),
                MISSING if night.seconds is None else f"{night.seconds:,.0f}",
            )
        )
    header = (
        "date",
        "train rows",
        "eval rows",
        "OOV",
        METRIC_NAMES[metric],
        "champion's",
        "gain",
        "gain of the champion's refit",
        "decision",
        "why not",
        "seconds",
    )
    return table("Nights, the latest first", header, rows)
