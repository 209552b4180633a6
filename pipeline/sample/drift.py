"""Draws the interactions of many days from a model that changes: users and items arrive and leave, tastes move.

    python -m pipeline.sample.drift --days 60 --rows 20000 --users 2000 --items 500 --output_directory log

writes one file a day, such as log/2026-01-01.csv, with the columns userId, movieId, clicked (0 or 1) and timestamp
(seconds), and prints the best possible AUC of each day. The same options give the same bytes, and the days of a shorter
log are the first days of a longer one.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pipeline.sample.auc import StreamingAuc
from pipeline.sample.flags import add_model_flags, checked

_DAY = 24 * 3600
# `turnover` and `drift` are the change over this many days.
_DAYS_PER_MONTH = 30
# Added to each logit, so that somewhat less than every third row is a click.
_GLOBAL_BIAS = -1.0
# Biases vary half as much as dot products.
_BIAS_SHARE = 0.5


class DriftConfig(BaseModel):
    """Holds the options of a log that drifts; `rows`, `users` and `items` are per day."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    start: datetime.date = datetime.date(2026, 1, 1)
    days: int = Field(ge=1)
    rows: int = Field(ge=1)
    users: int = Field(ge=1)
    items: int = Field(ge=1)
    # Share of the ids that leave in 30 days; new ones take their places.
    turnover: float = Field(0.2, ge=0, le=1)
    # 1 - correlation of a vector with itself 30 days before.
    drift: float = Field(0.2, ge=0, le=1)
    embedding_dim: int = Field(8, ge=2)
    # Standard deviation of the dot products.
    signal: float = Field(1.5, ge=0)
    # Popularity of the id of rank r is proportional to (r + 1) ** -exponent.
    exponent: float = Field(0.8, ge=0)
    seed: int = Field(42, ge=0, lt=2**63)


@dataclass(frozen=True)
class Day:
    """Holds the rows of a day in the order of their timestamps, and their true probabilities, `[rows]`."""

    date: datetime.date
    rows: pa.Table
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class WrittenDay:
    """Describes a written day; `ceiling_auc` is the AUC of the true probabilities, which no model can exceed."""

    path: str
    date: datetime.date
    rows: int
    positive_rows: int
    ceiling_auc: float


class _Population:
    """Holds the ids of one side, one for each popularity rank: their tokens, vectors and biases on one day."""

    def __init__(self, ids: int, config: DriftConfig, stream: int) -> None:
        self._config = config
        self._stream = stream
        self._scale = np.float32(np.sqrt(config.signal) * (config.embedding_dim - 1) ** -0.25)
        popularity = np.arange(1, ids + 1, dtype=np.float64) ** -config.exponent
        self._cumulative = np.cumsum(popularity) / popularity.sum()
        # Rounding could leave the end below 1, and a draw above it without an id.
        self._cumulative[-1] = 1.0
        random = self._random(0)
        self.vectors, self.biases = self._new(ids, random)
        # The order of tokens says nothing about popularity.
        self.tokens = random.permutation(ids).astype(np.int64)
        self._next_token = ids

    def advance(self, day: int) -> None:
        """Changes the ids to those of the next day, `day`, counted from 1."""
        random = self._random(day)
        fresh_vectors, fresh_biases = self._new(len(self.tokens), random)
        kept = np.float32((1 - self._config.drift) ** (1 / _DAYS_PER_MONTH))
        noise = np.float32(np.sqrt(1 - kept**2))
        self.vectors = kept * self.vectors + noise * fresh_vectors
        self.biases = kept * self.biases + noise * fresh_biases
        leaves = random.random(len(self.tokens)) < 1 - (1 - self._config.turnover) ** (1 / _DAYS_PER_MONTH)
        arrivals = int(leaves.sum())
        self.vectors[leaves], self.biases[leaves] = self._new(arrivals, random)
        self.tokens[leaves] = np.arange(self._next_token, self._next_token + arrivals)
        self._next_token += arrivals

    def draw(self, rows: int, random: np.random.Generator) -> NDArray[np.intp]:
        """Draws ranks, `[rows]`, popular ones more often."""
        return np.searchsorted(self._cumulative, random.random(rows), side="right")

    def _new(self, ids: int, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        config = self._config
        vectors = random.standard_normal((ids, config.embedding_dim - 1), dtype=np.float32) * self._scale
        biases = random.standard_normal(ids, dtype=np.float32) * np.float32(_BIAS_SHARE * config.signal)
        return vectors, biases

    def _random(self, day: int) -> np.random.Generator:
        return np.random.default_rng([self._config.seed, self._stream, day])


def days(config: DriftConfig) -> Iterator[Day]:
    """Yields the days of a log in order."""
    users, items = _Population(config.users, config, 0), _Population(config.items, config, 1)
    for number in range(config.days):
        if number:
            users.advance(number)
            items.advance(number)
        random = np.random.default_rng([config.seed, 2, number])
        user, item = users.draw(config.rows, random), items.draw(config.rows, random)
        logits = np.einsum("rd,rd->r", users.vectors[user], items.vectors[item])
        logits += users.biases[user] + items.biases[item] + np.float32(_GLOBAL_BIAS)
        probabilities = 1 / (1 + np.exp(-logits))
        date = config.start + datetime.timedelta(days=number)
        midnight = int(datetime.datetime.combine(date, datetime.time(), datetime.timezone.utc).timestamp())
        rows = pa.table(
            {
                "userId": users.tokens[user],
                "movieId": items.tokens[item],
                "clicked": (random.random(config.rows, dtype=np.float32) < probabilities).astype(np.int8),
                "timestamp": midnight + np.arange(config.rows, dtype=np.int64) * _DAY // config.rows,
            }
        )
        yield Day(date, rows, probabilities)


def write_days(config: DriftConfig, directory: str) -> Iterator[WrittenDay]:
    """Writes a CSV file a day, each complete before it has its name, and yields what was written."""
    os.makedirs(directory, exist_ok=True)
    for day in days(config):
        path = os.path.join(directory, f"{day.date}.csv")
        pyarrow.csv.write_csv(day.rows, f"{path}.partial", pyarrow.csv.WriteOptions(quoting_style="none"))
        os.replace(f"{path}.partial", path)
        positive = day.rows["clicked"].to_numpy() > 0
        auc = StreamingAuc()
        auc.add(day.probabilities, positive)
        yield WrittenDay(path, day.date, config.rows, int(positive.sum()), auc.result())


def main(argv: list[str]) -> None:
    """Exits with code 2 and one line if an option is out of range."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.sample.drift",
        description="Draws interactions of many days from a model that changes, and prints the highest AUC that any "
        "model could reach on each day.",
        allow_abbrev=False,
    )
    parser.add_argument("--output_directory", metavar="DIRECTORY", required=True, help="gets a CSV file a day")
    parser.add_argument("--days", type=int, required=True)
    parser.add_argument("--rows", type=int, required=True, help="a day")
    parser.add_argument("--users", type=int, required=True, help="at one time")
    parser.add_argument("--items", type=int, required=True, help="at one time")
    parser.add_argument("--start", type=datetime.date.fromisoformat, help="the first day; default: %(default)s")
    parser.add_argument("--turnover", type=float, help="share of ids replaced in 30 days; default: %(default)s")
    parser.add_argument("--drift", type=float, help="1 - correlation of vectors 30 days apart; default: %(default)s")
    add_model_flags(parser, DriftConfig)
    options = vars(parser.parse_args(argv))
    directory = options.pop("output_directory")
    config = checked(parser, DriftConfig, options)
    for day in write_days(config, directory):
        share = day.positive_rows / day.rows
        print(f"{day.path}: {day.rows:,} rows, {share:.1%} positive, AUC of the true model {day.ceiling_auc:.4f}")


if __name__ == "__main__":
    main(sys.argv[1:])
