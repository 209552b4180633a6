"""Compares strategies of retraining on a log that drifts, night by night.

    python benchmarks/retraining.py

Generates a log whose users, items and tastes change (`python -m pipeline.sample.drift`), and makes the dataset and the
model of each night as `--stage retrain` does, with a gate that lets everything through: what a night trained is what
the next one starts from. `never` is the first model, which stays. `cold` trains each night from nothing on the whole
window, `warm` does the same from the weights of the night before, and `incremental` adds only the new rows to those.
After a night, each export is asked for the rows of the next day, the same rows for all.

Prints AUC and log loss by day beside the best possible AUC of the day, then a summary: means, differences from the
first strategy with their 95 % intervals over days, and medians a night of CPU seconds (of preprocessing and of
training), epochs, and rows that were encoded and trained on. Writes the curves to an HTML file.

A strategy may have other values, such as `warm:rate=0.5,l2=2,patience=1,new=initial`: factors of the learning rate and
of L2, the patience of early stopping, and whether new ids start at their initial value or where the OOV bucket stood.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import gc
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from harness.measure import machine

KINDS: dict[str, dict[str, Any]] = {
    "cold": {"warm_start": False},
    "warm": {"warm_start": True},
    "incremental": {"warm_start": True, "mode": "incremental"},
}


@dataclass(frozen=True)
class Strategy:
    """Describes a kind of night; a training that starts from a former one may have other values."""

    name: str
    kind: str
    rate: float = 1.0
    l2: float = 1.0
    patience: int | None = None
    new: str = "oov"

    @classmethod
    def parse(cls, text: str) -> Strategy:
        kind, _, changes = text.partition(":")
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"there is no strategy {kind!r}; strategies: {', '.join(KINDS)}")
        values: dict[str, Any] = {}
        for change in filter(None, changes.split(",")):
            key, _, value = change.partition("=")
            kinds = {"rate": float, "l2": float, "patience": int, "new": str}
            if key not in kinds:
                raise argparse.ArgumentTypeError(f"there is no value {key!r}; values: {', '.join(kinds)}")
            values[key] = kinds[key](value)
        return cls(text, kind, **values)


@dataclass
class Nights:
    """Holds the results of the nights of a strategy: models by date, and the numbers of each."""

    strategy: Strategy
    plans: list[Any] = field(default_factory=list)
    datasets: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    numbers: list[dict[str, float]] = field(default_factory=list)
    auc: dict[str, float] = field(default_factory=dict)
    log_loss: dict[str, float] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--window_days", type=int, default=14)
    parser.add_argument("--rows", type=int, default=10_000, help="a day; default: %(default)s")
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--turnover", type=float, default=0.2)
    parser.add_argument("--drift", type=float, default=0.2)
    kinds = [Strategy(kind, kind) for kind in KINDS]
    parser.add_argument("--strategies", nargs="+", type=Strategy.parse, default=kinds)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        help="a value of the section `trainer`, for all strategies: trainer.epochs=5",
    )
    parser.add_argument("--jobs", type=int, default=1, help="strategies at the same time; default: %(default)s")
    parser.add_argument("--minutes", type=float, help="begin no night after that; default: make all nights")
    parser.add_argument("--plot", default="retraining.html", help="default: %(default)s")
    options = parser.parse_args()
    options.began = time.time()
    print(f"{machine()}\n\n{_describe(options)}\n", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        run(Path(directory), options)


def run(directory: Path, options: argparse.Namespace) -> None:
    import trainer  # noqa: F401, before TensorFlow: it asks for Keras 2
    from pipeline.sample.drift import DriftConfig, write_days

    days = DriftConfig(
        days=options.window_days + options.nights,
        rows=options.rows,
        users=options.users,
        items=options.items,
        turnover=options.turnover,
        drift=options.drift,
    )
    written = list(write_days(days, str(directory / "log")))
    dates = [day.date for day in written[options.window_days :]]
    ceilings = {day.date.isoformat(): day.ceiling_auc for day in written}
    # Each strategy in a process of its own. A fork would inherit TensorFlow's threads without their work.
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        # It has no champion, so it is the same for all.
        first = pool.submit(make_nights, directory, Strategy("first", "cold"), dates[:1], options, None).result()
        strategies = list(
            pool.map(partial(make_nights, directory, dates=dates[1:], options=options, first=first), options.strategies)
        )
    never: dict[str, tuple[float, float]] = {}
    # The nights that all strategies have made.
    dates = dates[: min(len(nights.plans) for nights in strategies)]
    for nights in strategies:
        del nights.numbers[len(dates) :]
    print(f"nights made: {len(dates)}\n")
    for night, tomorrow in itertools.pairwise(dates):
        measure(strategies, dates[0], night, tomorrow, never)
    print_days(strategies, never, ceilings)
    print_summary(strategies, never, ceilings)
    if never:
        plot(strategies, never, ceilings, options.plot)


def make_nights(
    directory: Path, strategy: Strategy, dates: list[datetime.date], options: argparse.Namespace, first: Nights | None
) -> Nights:
    """Makes the nights of a strategy one after the other, until the time is up; the first one has been made."""
    import trainer  # noqa: F401, see `run`

    nights = Nights(strategy) if first is None else replace(copy.deepcopy(first), strategy=strategy)
    for date in dates:
        if options.minutes is not None and time.time() > options.began + 60 * options.minutes:
            break
        make_night(directory, nights, date, options)
    return nights


def make_night(directory: Path, nights: Nights, date: datetime.date, options: argparse.Namespace) -> None:
    """Makes the dataset and the model of a night, and notes what they cost."""
    from dotbias.retraining.config import RetrainingConfig
    from dotbias.retraining.runs import make_plan, pipeline_of
    from pipeline.config import PipelineConfig
    from pipeline.preprocess import preprocess
    from trainer.loop.warm_start import WarmStart
    from trainer.train import train

    pipeline = PipelineConfig.model_validate(
        {
            "input": {"patterns": [str(directory / "log" / "*.csv")]},
            "columns": {"userId": "int64", "movieId": "int64", "clicked": "int64", "timestamp": "int64"},
            "label": {"column": "clicked"},
            "features": {"userId": {"side": "user"}, "movieId": {"side": "item"}},
            "timestamp_column": "timestamp",
        }
    )
    before = nights.plans[-1].date.isoformat() if nights.plans else None
    retraining = RetrainingConfig(**KINDS[nights.strategy.kind], window_days=options.window_days)
    plan = make_plan(date, retraining, before, nights.plans)
    own = directory / nights.strategy.name.replace(":", "-")
    dataset, model = own / "dataset" / date.isoformat(), own / "model" / date.isoformat()
    with cpu_seconds() as for_dataset:
        preprocess(str(dataset), pipeline_of(plan, pipeline, str(own / "counts")), [])
    start = None
    if plan.start is not None:
        start = WarmStart(nights.datasets[plan.start], nights.models[plan.start])
    config = trainer_config(str(dataset), nights.strategy, warm=start is not None, values=options.set)
    with cpu_seconds() as for_training, new_ids(nights.strategy.new):
        result = train(str(dataset), str(model), config, None, start)
    refitted = result["train"]["refit"]
    rows = result["dataset"]["rows"]
    nights.plans.append(plan)
    nights.datasets[date.isoformat()], nights.models[date.isoformat()] = str(dataset), str(model)
    epochs, again = len(result["train"]["epochs"]), len(refitted["epochs"])
    nights.numbers.append(
        {
            "dataset": for_dataset[0],
            "train": for_training[0],
            "epochs": epochs + again,
            "encoded": rows["train"] + rows["eval"],
            "rows": epochs * rows["train"] + again * refitted["rows"],
        }
    )
    said = ", ".join(f"{name} {value:,.1f}" for name, value in nights.numbers[-1].items())
    print(f"# {nights.strategy.name} {date}: {said}", file=sys.stderr, flush=True)
    forget()


def trainer_config(dataset: str, strategy: Strategy, *, warm: bool, values: list[str]) -> Any:
    """Builds the `trainer` section: the defaults, with the values of the strategy for a warm start."""
    from trainer.config import TrainerConfig, set_dotted
    from trainer.data.dataset import Dataset
    from trainer.loop.defaults import with_automatic_values

    sections: dict[str, Any] = {"trainer": {"embedding_dim": 16}}
    for text in values:
        key, _, value = text.partition("=")
        set_dotted(sections, key, json.loads(value))
    config = TrainerConfig.model_validate(sections["trainer"])
    if not warm:
        return config
    complete = with_automatic_values(config, Dataset.open(dataset, config))
    update: dict[str, Any] = {}
    if strategy.rate != 1:
        assert complete.optimizer.learning_rate is not None
        rate = strategy.rate * complete.optimizer.learning_rate
        update["optimizer"] = config.optimizer.model_copy(update={"learning_rate": rate})
    if strategy.l2 != 1:
        assert complete.l2 is not None
        update["l2"] = strategy.l2 * complete.l2
    if strategy.patience is not None:
        update["early_stopping"] = config.early_stopping.model_copy(update={"patience": strategy.patience})
    return config.model_copy(update=update)


@contextmanager
def new_ids(start: str) -> Iterator[None]:
    """Has new ids start at their initial value instead of where the OOV bucket stood, if `start` is `initial`."""
    from trainer.loop.warm_start import Former

    carry_over = Former.carry_over

    def with_initial_values(self: Any, model: Any, data: Any) -> Any:
        initial = {name: table.numpy() for name, table in model.tables.items()}
        counts = carry_over(self, model, data)
        for name, table in model.tables.items():
            _, kept, _ = self._former_rows(data, name)
            vocabulary = data.manifest.features[name].vocabulary_size
            new = np.flatnonzero(~kept[:vocabulary])
            values = table.numpy()
            values[new] = initial[name][new]
            table.assign(values)
        return counts

    if start == "initial":
        Former.carry_over = with_initial_values  # type: ignore[method-assign]
    try:
        yield
    finally:
        Former.carry_over = carry_over  # type: ignore[method-assign]


@contextmanager
def cpu_seconds() -> Iterator[list[float]]:
    """Measures the CPU seconds of all threads of this process; they are in the list when the block has ended."""
    spent: list[float] = []
    began = time.process_time()
    yield spent
    spent.append(time.process_time() - began)


def forget() -> None:
    """Frees what TensorFlow keeps of a training that has ended."""
    import tf_keras

    tf_keras.backend.clear_session()
    gc.collect()


def measure(
    strategies: list[Nights],
    first: datetime.date,
    night: datetime.date,
    tomorrow: datetime.date,
    never: dict[str, tuple[float, float]],
) -> None:
    """Asks what each strategy served after a night for the rows of the next day, which no model has seen."""
    from dotbias.evaluation.paired import compare_exports

    # The eval rows of tomorrow's night are those of the day before its date.
    dataset = strategies[0].datasets[tomorrow.isoformat()]
    exports = {nights.strategy.name: f"{nights.models[night.isoformat()]}/export" for nights in strategies}
    stays = f"{strategies[0].models[first.isoformat()]}/export"
    pairs = compare_exports(stays, exports, dataset, lambda *_: None, resamples=100).pairs
    for nights in strategies:
        measured = pairs[nights.strategy.name].second
        assert measured.auc.value is not None and measured.log_loss.value is not None
        nights.auc[night.isoformat()] = measured.auc.value
        nights.log_loss[night.isoformat()] = measured.log_loss.value
    stayed = pairs[strategies[0].strategy.name].first
    assert stayed.auc.value is not None and stayed.log_loss.value is not None
    never[night.isoformat()] = stayed.auc.value, stayed.log_loss.value


def print_days(strategies: list[Nights], never: dict[str, tuple[float, float]], ceilings: dict[str, float]) -> None:
    names = ["never", *(nights.strategy.name for nights in strategies)]
    print(f"| day | best possible AUC | {' | '.join(names)} |")
    print("|---|---|" + "---|" * len(names))
    for day, (auc, loss) in never.items():
        values = [f"{auc:.4f}, {loss:.4f}", *(f"{n.auc[day]:.4f}, {n.log_loss[day]:.4f}" for n in strategies)]
        print(f"| {day} | {ceilings[day]:.4f} | {' | '.join(values)} |")


def print_summary(strategies: list[Nights], never: dict[str, tuple[float, float]], ceilings: dict[str, float]) -> None:
    base = strategies[0]
    days = list(never)
    print(
        f"\n| strategy | AUC | log loss | AUC against {base.strategy.name} | log loss against {base.strategy.name} | "
        "CPU s, dataset | CPU s, training | epochs | rows encoded | rows trained on |"
    )
    print("|---" * 10 + "|")
    stayed = np.array([never[day] for day in days])
    rows = [("never", stayed[:, 0], stayed[:, 1], None)]
    rows += [
        (n.strategy.name, np.array([n.auc[d] for d in days]), np.array([n.log_loss[d] for d in days]), n)
        for n in strategies
    ]
    first_auc, first_loss = rows[1][1], rows[1][2]
    for name, auc, loss, nights in rows:
        cells = [f"{auc.mean():.4f}", f"{loss.mean():.4f}", _mean(auc - first_auc), _mean(loss - first_loss)]
        # The first night of each strategy is a cold one.
        of_nights = [] if nights is None else nights.numbers[1:]
        for key, digits in (("dataset", 1), ("train", 1), ("epochs", 0), ("encoded", 0), ("rows", 0)):
            cells.append(f"{statistics.median(n[key] for n in of_nights):,.{digits}f}" if of_nights else "0")
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"\nbest possible AUC on average: {np.mean([ceilings[day] for day in days]):.4f}")


def _mean(differences: np.ndarray) -> str:
    """Formats a mean with its 95 % interval."""
    if not differences.any():
        return "0"
    half = 1.96 * differences.std(ddof=1) / np.sqrt(len(differences)) if len(differences) > 1 else float("nan")
    mean = differences.mean()
    return f"{mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f})"


def plot(
    strategies: list[Nights], never: dict[str, tuple[float, float]], ceilings: dict[str, float], path: str
) -> None:
    import plotly.graph_objects as go

    days = list(never)
    figure = go.Figure()
    figure.add_scatter(x=days, y=[ceilings[day] for day in days], name="best possible", line={"dash": "dot"})
    figure.add_scatter(x=days, y=[never[day][0] for day in days], name="never")
    for nights in strategies:
        figure.add_scatter(x=days, y=[nights.auc[day] for day in days], name=nights.strategy.name)
    figure.update_layout(yaxis_title="AUC on the day's rows", title="What serves, by strategy of retraining")
    figure.write_html(path)
    print(f"\ncurves: {path}")


def _describe(options: argparse.Namespace) -> str:
    return (
        f"{options.nights} nights, window {options.window_days} days, {options.rows:,} rows a day, {options.users:,} "
        f"users, {options.items:,} items, turnover {options.turnover}, drift {options.drift} in 30 days"
    )


if __name__ == "__main__":
    main()
