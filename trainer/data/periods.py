"""Divides the steps of a training into periods: after each, weights are averaged and the eval split is measured.

A period is an epoch, unless `trainer.evaluate_every_rows` gives its rows. Then periods follow one another across the
ends of epochs, and only the last of a training can be shorter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.reader import num_steps


class Stretch(NamedTuple):
    """Holds periods of as many steps, in [first, end), and their place in the data.

    They begin after `skip_steps` of the epoch `first_epoch` and end before the epoch `epochs`.
    """

    first: int
    end: int
    steps: int
    first_epoch: int
    skip_steps: int
    epochs: int


@dataclass(frozen=True)
class Periods:
    """Counts periods, steps and rows from the start of a training; periods and epochs are numbered from 0.

    Attributes:
        unit: what messages call a period, `epoch` or `period`.
        steps: of a period.
        steps_of_epoch: of an epoch.
        steps_in_all: of the training.
        rows: of an epoch.
        batch_size: of all workers together.
    """

    unit: str
    steps: int
    steps_of_epoch: int
    steps_in_all: int
    rows: int
    batch_size: int

    @classmethod
    def of(cls, data: Dataset, config: TrainerConfig, workers: int, most: int | None = None) -> Periods:
        """Divide a training.

        Args:
            data: the dataset.
            config: with automatic values filled in.
            workers: share the rows.
            most: periods to train; None: all in `config.epochs`, which are the limit in any case.
        """
        assert config.batch_size is not None
        train, every = data.split("train"), config.evaluate_every_rows
        epoch = num_steps(train.shards, config.batch_size, workers)
        steps = epoch if every is None else -(-every // config.batch_size)
        in_all = epoch * config.epochs if most is None else min(epoch * config.epochs, steps * most)
        return cls("epoch" if every is None else "period", steps, epoch, in_all, train.rows, config.batch_size)

    @property
    def count(self) -> int:
        return -(-self.steps_in_all // self.steps)

    def steps_of(self, period: int) -> int:
        return min(self.steps, self.steps_in_all - period * self.steps)

    def rows_after(self, periods: int, steps: int = 0) -> int:
        """Return the rows trained on after whole periods and some steps of the next; those of all epochs add up."""
        epochs, more = self._place(periods, steps)
        return epochs * self.rows + min(more * self.batch_size, self.rows)

    def rows_of(self, period: int) -> int:
        return self.rows_after(period + 1) - self.rows_after(period)

    def epochs_after(self, periods: int) -> float:
        """Return the epochs after whole periods, an integer where one has just ended."""
        epochs, more = self._place(periods, 0)
        return round(epochs + more / self.steps_of_epoch, 6) if more else epochs

    def stretches(self, period: int, steps: int) -> Iterator[Stretch]:
        """Yield what is left from a step of a period on: the rest of that period, whole periods, and a shorter last."""
        while period < self.count:
            left = self.steps_of(period) - steps
            end = period + 1 if left < self.steps else self.steps_in_all // self.steps
            epochs, more = self._place(end, 0)
            yield Stretch(period, end, left, *self._place(period, steps), epochs + bool(more))
            period, steps = end, 0

    def _place(self, periods: int, steps: int) -> tuple[int, int]:
        """Return the epoch and the step in it."""
        return divmod(min(periods * self.steps + steps, self.steps_in_all), self.steps_of_epoch)
