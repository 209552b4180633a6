"""Makes the logs that `benchmarks/quality.py` measures on: a MovieLens file, parts of it, and generated ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

TEST_FRACTION = 0.1
# MovieLens: half a star to five.
STARS = (0.5, 5.0)
BLENDED = {"column": "value", "threshold": 4.0, "scale": list(STARS), "soft_weight": 0.8}


@dataclass(frozen=True)
class Log:
    """Holds a log: `rows` has the columns user, item, value and time; `label` is `pipeline.label` for `value`."""

    rows: pl.DataFrame
    label: dict[str, Any]
    threshold: float
    scale: tuple[float, float]
    # The last tenth is the test instead of a random one.
    by_time: bool = False
    # Options of both features.
    features: dict[str, Any] = field(default_factory=dict)

    def split(self, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Returns rows to train on and rows to test on; 42 gives the split of docs/benchmarks.md.

        `is_new` marks the test rows whose item has no train row.
        """
        rows = self.rows.with_columns(positive=(pl.col("value") >= self.threshold).cast(pl.Int8))
        if self.by_time:
            is_test = rows["time"] >= rows["time"].quantile(1 - TEST_FRACTION)
        else:
            is_test = pl.Series(np.random.default_rng(seed).random(len(rows)) < TEST_FRACTION)
        train, test = rows.filter(~is_test), rows.filter(is_test)
        return train, test.with_columns(is_new=~pl.col("item").is_in(train["item"].unique().implode()))


def movielens(path: Path) -> pl.DataFrame:
    return pl.read_csv(path).select(
        user=pl.col("userId"), item=pl.col("movieId"), value=pl.col("rating").cast(pl.Float64), time=pl.col("timestamp")
    )


def generated(rows: int, users: int, items: int, signal: float, exponent: float) -> pl.DataFrame:
    """Generates clicks with the sample generator, see `pipeline.sample`."""
    from pipeline.config import SampleConfig
    from pipeline.sample.generator import TrueModel

    config = SampleConfig(rows=rows, users=users, items=items, signal=signal, exponent=exponent, seed=1)
    tables = [pl.from_arrow(table) for table, _ in TrueModel(config).chunks("train", rows)]
    return pl.concat(tables).select(
        user=pl.col("userId"),
        item=pl.col("movieId"),
        value=pl.col("clicked").cast(pl.Float64),
        time=pl.col("timestamp"),
    )


def _of_movielens(path: Path) -> dict[str, Callable[[], Log]]:
    def part(keep: pl.Expr | None = None, **changes: Any) -> Callable[[], Log]:
        def make() -> Log:
            rows = movielens(path)
            options = {"label": BLENDED, "threshold": 4.0, "scale": STARS, **changes}
            return Log(rows if keep is None else rows.filter(keep), **options)

        return make

    return {
        "movielens": part(),
        # Every eighth user: sixty times as many items as users, most of them rare.
        "few-users": part(pl.col("user") % 8 == 0),
        # A fifth of the rows.
        "thinned": part((pl.col("user") * 31 + pl.col("item") * 17) % 5 == 0),
        "last-tenth": part(by_time=True),
        # Nearly all labels are 1.
        "mostly-positive": part(label={**BLENDED, "threshold": 2.0}, threshold=2.0),
        "regression": part(label={"column": "value", "scale": list(STARS)}),
    }


_CLICKS: dict[str, Any] = {"label": {"column": "value"}, "threshold": 1.0, "scale": (0.0, 1.0)}

_GENERATED: dict[str, Callable[[], Log]] = {
    "sparse": lambda: Log(generated(60_000, 1_500, 18_000, signal=1.0, exponent=0.8), **_CLICKS),
    "dense": lambda: Log(generated(60_000, 1_000, 100, signal=1.5, exponent=0.3), **_CLICKS),
    # Labels that depend little on chance.
    "clear": lambda: Log(generated(100_000, 2_000, 200, signal=4.0, exponent=0.5), **_CLICKS),
    "million": lambda: Log(generated(1_000_000, 6_000, 4_000, signal=1.0, exponent=0.8), **_CLICKS),
}


def logs(input_file: Path | None) -> dict[str, Callable[[], Log]]:
    """Returns the logs by name; without a MovieLens file, generated logs only."""
    return {**(_of_movielens(input_file) if input_file else {}), **_GENERATED}
