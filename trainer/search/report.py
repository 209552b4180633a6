"""Reports a search: a table of its trials, and a page with a plot of each option."""

from __future__ import annotations

import csv
import io
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pipeline.manifest import join
from trainer.data.files import write_text
from trainer.search.finals import Choice
from trainer.search.rounds import Search

TABLE_NAME = "trials.csv"
PAGE_NAME = "report.html"


def write_report(directory: str, search: Search, choice: Choice) -> None:
    """Write `trials.csv` and `report.html`, which needs no network and no other file."""
    write_text(join(directory, TABLE_NAME), _table(search, choice))
    page = _figure(search, choice).to_html(include_plotlyjs=True, full_html=True)
    write_text(join(directory, PAGE_NAME), page)


def _table(search: Search, choice: Choice) -> str:
    options = list(search.trials[0].values)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    whole = ["best period", "eval score of a whole training", "gain on other rows", "standard error", "chosen"]
    writer.writerow(["trial", "round", *options, "score", *whole])
    for number, trial in enumerate(search.trials):
        row = [number + 1, trial.round + 1, *trial.values.values(), trial.score]
        if number in search.wholes:
            row += [search.wholes[number].best_period, search.wholes[number].score]
            row += choice.gains.get(number, (None, None))
            row.append("yes" if number == choice.chosen else None)
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row])
    return text.getvalue()


def _figure(search: Search, choice: Choice) -> Any:
    """Plot each option against the gain of a trial in its round, later rounds darker."""
    complete = [(trial, trial.score) for trial in search.trials if trial.score is not None]
    # The first trial of a round goes on with the options that the round begins with.
    first: dict[int, float] = {}
    for trial, score in complete:
        first.setdefault(trial.round, score)
    options = list(search.trials[0].values)
    figure = make_subplots(rows=1, cols=len(options), subplot_titles=options)
    for column, option in enumerate(options, start=1):
        figure.add_trace(
            go.Scatter(
                x=[trial.values[option] for trial, _ in complete],
                y=[score - first[trial.round] for trial, score in complete],
                mode="markers",
                marker={"color": [trial.round for trial, _ in complete], "colorscale": "Blues", "line": {"width": 1}},
                text=[f"round {trial.round + 1}: {trial.values}" for trial, _ in complete],
            ),
            row=1,
            col=column,
        )
        figure.update_xaxes(type="log", row=1, col=column)
    figure.update_yaxes(title_text="gain in eval score within the round", row=1, col=1)
    title = f"{len(complete)} trials, {len(search.trials) - len(complete)} more given up"
    if choice.gain is not None:
        title += f"; on other rows, the best one gains {choice.gain.value:+.4f} \u00b1 {choice.gain.error:.4f}"
    title += f"; trial {choice.chosen + 1} is chosen" if choice.chosen else "; the given configuration stays"
    figure.update_layout(title=title, showlegend=False, height=480)
    return figure
