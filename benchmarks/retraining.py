"""Compares strategies of retraining on a log that drifts, night by night.

    python benchmarks/retraining.py

Generates a log whose users, items and tastes change (`python -m pipeline.sample.drift`), and runs the nights of each
strategy by the real command, with a gate that lets everything through. Then the model that each strategy would have
served is asked for the rows of the next day, the same rows for all. `never` is the first model, which stays. Prints AUC
and log loss by day and on average, beside the best possible AUC of the day, with the differences from `cold` and their
95 % intervals over days, and seconds and rows; writes the curves to an HTML file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from harness.measure import ROOT, machine

STRATEGIES: dict[str, dict[str, Any]] = {
    "cold": {"warm_start": False},
    "warm": {"warm_start": True},
    "incremental": {"warm_start": True, "mode": "incremental"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--window_days", type=int, default=14)
    parser.add_argument("--rows", type=int, default=10_000, help="a day; default: %(default)s")
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--turnover", type=float, default=0.2)
    parser.add_argument("--drift", type=float, default=0.2)
    parser.add_argument("--strategies", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--set", action="append", default=[], help="a value of the configuration, for all strategies")
    parser.add_argument("--plot", default="retraining.html", help="default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        run(Path(directory), options)


def run(directory: Path, options: argparse.Namespace) -> None:
    import trainer  # noqa: F401, before TensorFlow: it asks for Keras 2
    from pipeline.sample.drift import DriftConfig, write_days

    drift = DriftConfig(
        days=options.window_days + options.nights,
        rows=options.rows,
        users=options.users,
        items=options.items,
        turnover=options.turnover,
        drift=options.drift,
    )
    written = list(write_days(drift, str(directory / "log")))
    dates = [day.date.isoformat() for day in written[options.window_days :]]
    ceilings = {day.date.isoformat(): day.ceiling_auc for day in written}
    costs = {name: make_nights(directory, name, dates, options) for name in options.strategies}
    found = measure(directory, dates, options.strategies)
    print(f"{machine()}\n\n{_options(options)}\n")
    print_days(found, ceilings)
    print_summary(found, ceilings, costs, options)
    plot(found, ceilings, options.plot)


def make_nights(directory: Path, name: str, dates: list[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs the nights of a strategy; returns for each its seconds, CPU seconds and rows."""
    nothing = {"margin": {"auc": 1.0, "log_loss": 10.0}, "floors": {"auc": None, "normalized_log_loss": None}}
    gate = {**nothing, "slices": {"new_users": None, "new_items": None}, "verdict": False}
    gate["data"] = dict.fromkeys(
        ("min_rows_ratio", "max_rows_ratio", "rejected", "oov", "label_mean", "psi"),
    )
    config = {
        "pipeline": {
            "columns": {"userId": "int64", "movieId": "int64", "clicked": "int64", "timestamp": "int64"},
            "label": {"column": "clicked"},
            "features": {"userId": {"side": "user"}, "movieId": {"side": "item"}},
            "timestamp_column": "timestamp",
        },
        "trainer": {"embedding_dim": 16},
        "retraining": {
            **STRATEGIES[name],
            "window_days": options.window_days,
            "gate": gate,
            "keep": {"shards": len(dates), "exports": len(dates)},
        },
    }
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    costs = []
    for date in dates:
        line = [sys.executable, str(ROOT / "run_pipeline.py"), "retrain", "--date", date, "--config", str(path)]
        line += ["--input", str(directory / "log" / "*.csv"), "--output_root", str(directory / name)]
        line += [part for value in options.set for part in ("--set", value)]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
        if done.returncode:
            raise SystemExit(f"{' '.join(line)} failed:\n{done.stderr}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        night = directory / name / "runs" / date
        decision = json.loads((night / "decision.json").read_text())
        seconds = json.loads((night / "seconds.json").read_text())
        costs.append(
            {
                "seconds": time.perf_counter() - began,
                "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
                "train": seconds["train"],
                "rows": decision["train_rows"] + decision["eval_rows"],
                "outcome": decision["outcome"],
            }
        )
        print(f"# {name} {date}: {costs[-1]['seconds']:.0f} s, {decision['outcome']}", file=sys.stderr)
    return costs


def measure(directory: Path, dates: list[str], strategies: list[str]) -> dict[str, dict[str, tuple[float, float]]]:
    """Measures the model that each strategy served after a night on the rows of the next day.

    Returns AUC and log loss by strategy by day.
    """
    from dotbias.evaluation.paired import compare_exports

    first = strategies[0]
    found: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in ("never", *strategies)}
    for night, tomorrow in itertools.pairwise(dates):
        # The eval rows of a night are the rows of the day before its date, which the night before has not seen.
        dataset = str(directory / first / "runs" / tomorrow / "dataset")
        exports = {name: str(directory / name / "runs" / night / "model" / "export") for name in strategies}
        never = str(directory / first / "runs" / dates[0] / "model" / "export")
        compared = compare_exports(never, exports, dataset, lambda *_: None, resamples=100)
        pairs = compared.pairs
        for name, measured in {
            "never": pairs[first].first,
            **{name: pairs[name].second for name in strategies},
        }.items():
            assert measured.auc.value is not None and measured.log_loss.value is not None
            found[name][night] = (measured.auc.value, measured.log_loss.value)
    return found


def print_days(found: dict[str, dict[str, tuple[float, float]]], ceilings: dict[str, float]) -> None:
    print(f"| day | best possible AUC | {' | '.join(found)} |")
    print("|---|---|" + "---|" * len(found))
    for day in next(iter(found.values())):
        values = " | ".join(f"{found[name][day][0]:.4f}, {found[name][day][1]:.4f}" for name in found)
        print(f"| {day} | {ceilings[day]:.4f} | {values} |")


def print_summary(
    found: dict[str, dict[str, tuple[float, float]]],
    ceilings: dict[str, float],
    costs: dict[str, list[dict[str, Any]]],
    options: argparse.Namespace,
) -> None:
    base = options.strategies[0]
    print(f"\n| strategy | AUC | log loss | AUC against {base} | train s | whole s | CPU s | rows a night |")
    print("|---|---|---|---|---|---|---|---|")
    for name, days in found.items():
        auc, loss = np.mean(list(days.values()), axis=0)
        gains = np.array([days[day][0] - found[base][day][0] for day in days])
        half = 1.96 * gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else float("nan")
        against = f"{gains.mean():+.4f} ({gains.mean() - half:+.4f} to {gains.mean() + half:+.4f})"
        # The first night of each strategy is a cold one.
        nights = costs.get(name, [])[1:]
        spent = [f"{np.median([night[key] for night in nights]):,.1f}" for key in ("train", "seconds", "cpu")]
        spent = [*spent, f"{np.median([night['rows'] for night in nights]):,.0f}"] if nights else ["-"] * 4
        print(f"| {name} | {auc:.4f} | {loss:.4f} | {against} | {' | '.join(spent)} |")
    print(f"\nbest possible AUC on average: {np.mean([ceilings[day] for day in found[base]]):.4f}")


def plot(found: dict[str, dict[str, tuple[float, float]]], ceilings: dict[str, float], path: str) -> None:
    import plotly.graph_objects as go

    days = list(next(iter(found.values())))
    figure = go.Figure()
    figure.add_scatter(x=days, y=[ceilings[day] for day in days], name="best possible", line={"dash": "dot"})
    for name in found:
        figure.add_scatter(x=days, y=[found[name][day][0] for day in days], name=name)
    figure.update_layout(yaxis_title="AUC on the day's rows", title="What serves, by strategy of retraining")
    figure.write_html(path)
    print(f"\ncurves: {path}")


def _options(options: argparse.Namespace) -> str:
    return (
        f"{options.nights} nights, window {options.window_days} days, {options.rows:,} rows a day, {options.users:,} "
        f"users, {options.items:,} items, turnover {options.turnover}, drift {options.drift} in 30 days"
    )


if __name__ == "__main__":
    main()
