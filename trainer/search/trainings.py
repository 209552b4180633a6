"""Trains models of a search: whole ones, ones that go on from the weights of a whole one, and ones on other rows."""

from __future__ import annotations

import gc
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipeline.manifest import DotbiasError, join
from trainer.build import compiled_model
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset, side_features
from trainer.data.files import exists, open_file, write_text
from trainer.data.periods import Periods
from trainer.devices.cluster import num_workers
from trainer.loop.checkpoint import improves
from trainer.loop.evaluate import METRICS, training_loss
from trainer.loop.fit import average_weights, fit_periods, make_average
from trainer.loop.prepare import check_that_it_fits
from trainer.loop.ranking import NDCG, MeasureRanking, RankingTask, read_rows
from trainer.model.averaging import WeightAverage
from trainer.model.dot_bias import DotBias
from trainer.model.oov import OovEmbeddings
from trainer.model.tables import Counts
from trainer.model.variables import Variables
from trainer.output.predictions import is_value, predict
from trainer.search.evidence import Scores, label_scores
from trainer.search.folds import with_fewer_eval_rows, without_eval_rows

# Scores take some 60 bytes a row, and chance is small with so many.
MOST_ROWS = 1 << 20


class GivenUp(DotbiasError):
    """Says why a trial cannot be finished: its loss is not finite, or it does not fit into memory."""


@dataclass(frozen=True)
class Whole:
    """Holds the result of a whole training: score and metrics of its best period, from 1, and the number of periods."""

    best_period: int
    periods: int
    score: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Answers:
    """Holds the scores of a model on the eval rows of a fold, and the user of each, `[scores]`; see `evidence`.

    `rows` is how many its training read.
    """

    scores: Scores
    users: npt.NDArray[np.int64]
    rows: int


@dataclass
class Laboratory:
    """Trains models on a dataset; what a training has found is kept in files, so that each is done once.

    Attributes:
        data: the dataset.
        strategy: the devices.
        counts: of the ids of each feature.
        task: the users to rank items for; None if models are judged by labels.
        monitor: the eval metric that early stopping goes by.
        directory: of the files, which has to be there.
        tell: called with the rows of each period.
        trainings: how many have begun.
    """

    data: Dataset
    strategy: tf.distribute.Strategy
    counts: Mapping[str, Counts]
    task: RankingTask | None
    monitor: str
    directory: str
    tell: Callable[[int], None]
    trainings: int = 0

    def whole(self, number: int, config: TrainerConfig) -> Whole:
        """Train a trial as `train` does, without checkpoints; keep the weights for `short`.

        Raises:
            GivenUp: the training cannot be finished.
        """
        path = join(self.directory, f"trial-{number}.json")
        if exists(path):
            with open_file(path) as file:
                return Whole(**json.loads(file.read()))
        course, scores = self._train(self.data, config, self.task, self.counts, self._weights_of(number))
        whole = Whole(course.best_period, len(course.periods), float(scores.mean()), course.best)
        write_text(path, json.dumps(asdict(whole)))
        return whole

    def again(self, name: str, data: Dataset, config: TrainerConfig) -> Answers:
        """Train on a fold as `train` does; return the answers for its eval rows, in the best period.

        L2 depends on the counts of ids. They are as much smaller than the fold's as they are in the refit, which does
        not count the eval rows that it trains on.

        Args:
            name: of the training, for the file.
            data: the fold.
            config: the options.

        Raises:
            GivenUp: the training cannot be finished.
        """
        path = join(self.directory, f"{name}.npz")
        if not exists(path):
            task = None if self.task is None else draw_task(data, config)
            rows_of_counts = sum(
                self.data.split(name).rows for name in (("train", "eval") if config.refit else ("train",))
            )
            share = np.float32(data.split("train").rows / rows_of_counts)
            counts = {name: of_feature * share for name, of_feature in self.counts.items()}
            course, scores = self._train(data, config, task, counts)
            rows = rows_after(data, config, len(course.periods))
            with open(path + ".tmp", "wb") as file:
                np.savez_compressed(file, scores=scores, users=_users(data, task), rows=rows)
            os.replace(path + ".tmp", path)
        with np.load(path) as stored:
            return Answers(stored["scores"], stored["users"], int(stored["rows"]))

    def short(self, start: int, config: TrainerConfig, periods: int) -> float:
        """Train for some periods from the best weights of the trial `start`; return the score after the last.

        Raises:
            GivenUp: the training cannot be finished.
        """
        with self._model(config, self.data, self.counts) as (model, average):
            _weights(model).read(self._weights_of(start))
            self._fit(model, average, without_eval_rows(self.data), config, None, _Watch(), periods)
            average.swap()
            if self.task is None:
                OovEmbeddings(model, self.data, config).fit("eval")
            return float(_scores(model, self.data, self.task).mean())

    def _train(
        self,
        data: Dataset,
        config: TrainerConfig,
        task: RankingTask | None,
        counts: Mapping[str, Counts],
        weights: str | None = None,
    ) -> tuple[_StopEarly, Scores]:
        """Train with early stopping; return its course and the scores of the best period, whose weights are written."""
        scores = np.zeros(0)
        with self._model(config, data, counts) as (model, average):

            def keep() -> None:
                nonlocal scores
                average.swap()
                scores = _scores(model, data, task)
                if weights is not None:
                    _weights(model).write(weights)
                average.swap()

            course = _StopEarly(self.monitor, config.early_stopping.patience, keep)
            self._fit(model, average, data, config, task, course)
        return course, scores

    def _weights_of(self, number: int) -> str:
        return join(self.directory, f"weights-{number}")

    @contextmanager
    def _model(
        self, config: TrainerConfig, data: Dataset, counts: Mapping[str, Counts]
    ) -> Iterator[tuple[DotBias, WeightAverage]]:
        """Yield a model with its initial values, and an average of its weights; free both."""
        self.trainings += 1
        try:
            check_that_it_fits(data, config, self.strategy)
        except DotbiasError as error:
            raise GivenUp(str(error)) from error
        tf.keras.utils.set_random_seed(config.seed)
        model = compiled_model(data, config, self.strategy, counts)
        try:
            yield model, make_average(model, config, self.strategy)
        finally:
            # Freed now, since the model of the next trial is as large.
            model.release()
            del model
            tf.keras.backend.clear_session()
            gc.collect()

    def _fit(
        self,
        model: DotBias,
        average: WeightAverage,
        data: Dataset,
        config: TrainerConfig,
        task: RankingTask | None,
        watch: _Watch,
        most_periods: int | None = None,
    ) -> None:
        periods = Periods.of(data, config, num_workers(), most_periods)
        callbacks = [
            *([] if task is None else [MeasureRanking(task)]),
            average_weights(model, data, config, average),
            tf.keras.callbacks.LambdaCallback(on_epoch_end=lambda period, _: self.tell(periods.rows_of(period))),
            watch,
        ]
        fit_periods(model, data, config, self.strategy, callbacks, periods)


def rows_after(data: Dataset, config: TrainerConfig, periods: int) -> int:
    """Return the rows that a training of so many periods reads."""
    return Periods.of(data, config, num_workers()).rows_after(periods)


def draw_task(data: Dataset, config: TrainerConfig) -> RankingTask:
    """Draw the users to rank items for; raise `GivenUp` if there are none."""
    task = RankingTask.draw(data, config.seed)
    if task is None:
        raise GivenUp("Every eval user's items are unknown or in their train rows, so there is nothing to judge by.")
    return task


def _scores(model: DotBias, data: Dataset, task: RankingTask | None) -> Scores:
    """Measure a model on eval rows of `data`, or with the task that was drawn from them."""
    if task is not None:
        return task.by_user(lambda name: model.folded(name).numpy())[NDCG]
    answers = predict(model, with_fewer_eval_rows(data, MOST_ROWS), "eval")
    logits, labels = (np.concatenate(parts) for parts in zip(*answers, strict=True))
    if not np.isfinite(logits).all():
        raise GivenUp("Weights are not finite.")
    label = data.manifest.label
    positive = labels >= np.float32(label.positive_at)
    return label_scores(logits, positive, labels if is_value(label) else None)


def _users(data: Dataset, task: RankingTask | None) -> npt.NDArray[np.int64]:
    """Return the user of each score, `[scores]`."""
    user = side_features(data, "user")[0]
    return read_rows(with_fewer_eval_rows(data, MOST_ROWS), "eval", None)[user] if task is None else task.users[user]


class _Watch(tf.keras.callbacks.Callback):
    """Notes the eval metrics of each period, and ends a training whose loss is not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.periods: list[dict[str, float]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not math.isfinite(training_loss(logs)):
            raise GivenUp("The loss is not finite; try a lower `trainer.optimizer.learning_rate`.")
        self.periods.append({name: float(logs[f"val_{name}"]) for name in METRICS if f"val_{name}" in logs})


class _StopEarly(_Watch):
    """Ends a training as `train` would; `keep` is called after each period that is the best so far."""

    def __init__(self, monitor: str, patience: int, keep: Callable[[], None]) -> None:
        super().__init__()
        self._monitor = monitor
        self._patience = patience
        self._keep = keep
        self.best_period = 0

    @property
    def best(self) -> dict[str, float]:
        """Return the metrics of the best period."""
        return self.periods[self.best_period - 1]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        best = self.best[self._monitor] if self.best_period else None
        if improves(self._monitor, self.periods[-1][self._monitor], best):
            self.best_period = len(self.periods)
            self._keep()
        elif len(self.periods) - self.best_period >= self._patience:
            self.model.stop_training = True


def _weights(model: DotBias) -> Variables:
    tables = {f"tables/{name}": table for name, table in model.tables.items()}
    return Variables({**tables, "bias": model.bias}, model.distribute_strategy)
