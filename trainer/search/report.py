"""Reports a search: a table of its trials, and a page with plots of how much each option mattered."""

from __future__ import annotations

import csv
import io
import warnings
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from plotly.subplots import make_subplots

from pipeline.manifest import join
from trainer.data.files import write_text

TABLE_NAME = "trials.csv"
PAGE_NAME = "report.html"
# With fewer, importances are mostly chance.
_ENOUGH_TRIALS = 8


def write_report(directory: str, study: optuna.Study, monitor: str) -> None:
    """Write `trials.csv` and `report.html`, which needs no network and no other file."""
    trials = ranked(study)
    write_text(join(directory, TABLE_NAME), _table(trials, monitor))
    page = _figure(study, trials, monitor).to_html(include_plotlyjs=True, full_html=True)
    write_text(join(directory, PAGE_NAME), page)


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """Return complete trials, the best first, then pruned ones."""
    best_first = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    complete = study.get_trials(states=[TrialState.COMPLETE])
    pruned = study.get_trials(states=[TrialState.PRUNED])
    return [*sorted(complete, key=lambda trial: best_first * (trial.value or 0.0)), *pruned]


def importances(study: optuna.Study) -> dict[str, float]:
    """Compute the share of each option in the variance of the eval metric; empty with too few trials.

    S. Watanabe et al., "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces" (2023).
    """
    if len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])) < _ENOUGH_TRIALS:
        return {}
    with warnings.catch_warnings():
        # Optuna calls the evaluator experimental.
        warnings.simplefilter("ignore")
        return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=0.25))


def _table(trials: list[FrozenTrial], monitor: str) -> str:
    options = list(trials[0].params)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", f"eval {monitor}", "epochs", "seconds", *options])
    for trial in trials:
        epochs, value = _epochs_and_value(trial)
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        values = [f"{v:.6g}" if isinstance(v, float) else v for v in trial.params.values()]
        writer.writerow([trial.number + 1, trial.state.name.lower(), value, epochs, f"{seconds:.1f}", *values])
    return text.getvalue()


def _epochs_and_value(trial: FrozenTrial) -> tuple[int, str]:
    """Return the number of epochs trained and the best value among them, for pruned trials too."""
    steps = trial.intermediate_values
    value = steps[max(steps)] if trial.value is None and steps else trial.value
    return len(steps), "" if value is None else f"{value:.6f}"


def _figure(study: optuna.Study, trials: list[FrozenTrial], monitor: str) -> Any:
    """Plot importances, and each option with a point for each complete trial, later ones darker."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    options = list(complete[0].params)
    shares = importances(study)
    figure = make_subplots(rows=1, cols=len(options) + 1, subplot_titles=["importance", *options])
    figure.add_trace(go.Bar(x=list(shares.values()), y=list(shares), orientation="h"), row=1, col=1)
    for column, option in enumerate(options, start=2):
        figure.add_trace(
            go.Scatter(
                x=[trial.params[option] for trial in complete],
                y=[trial.value for trial in complete],
                mode="markers",
                marker={"color": [trial.number for trial in complete], "colorscale": "Blues", "line": {"width": 1}},
                text=[f"trial {trial.number + 1}: {trial.params}" for trial in complete],
            ),
            row=1,
            col=column,
        )
        figure.update_xaxes(type="log", row=1, col=column)
    figure.update_yaxes(title_text=f"eval {monitor}", row=1, col=2)
    title = f"{len(complete)} trials, {len(trials) - len(complete)} more given up; best eval {monitor} "
    figure.update_layout(title=title + f"{study.best_value:.4f}", showlegend=False, height=480)
    return figure
