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
    """Holds a log: `rows` has the columns user, item, value and time; `label` is `pipeline.label` for `value`.

    Generated rows have the column `truth` too: a score that orders rows as their true probabilities do.
    """

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
    tables = [pl.from_arrow(table).with_columns(truth=p) for table, p in TrueModel(config).chunks("train", rows)]
    return pl.concat(tables).select(
        user=pl.col("userId"),
        item=pl.col("movieId"),
        value=pl.col("clicked").cast(pl.Float64),
        time=pl.col("timestamp"),
        truth=pl.col("truth"),
    )


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Describes a log that `drawn` makes.

    Args:
        rows, users, items: how many; ids that are never drawn are not in the log.
        dim: dimensions of the true vectors.
        signal: standard deviation of their dot products.
        bias: standard deviation of the biases of users, and of items.
        exponents: of users and of items; popularity of rank r is in proportion to (r + 1) ** -exponent.
        offset: added to all logits.
        scale: lowest value, highest value and step; None: clicks, drawn with the probability of the logit.
    """

    rows: int
    users: int
    items: int
    dim: int = 7
    signal: float
    bias: float
    exponents: tuple[float, float]
    offset: float = -1.0
    scale: tuple[float, float, float] | None = None


def drawn(shape: Shape) -> pl.DataFrame:
    """Draws a log with its own exponents and biases, of clicks or of values on a scale."""
    random = np.random.default_rng([1, 1])
    sides = []
    for ids, exponent in zip((shape.users, shape.items), shape.exponents, strict=True):
        popularity = np.arange(1, ids + 1.0) ** -exponent
        index = random.choice(ids, shape.rows, p=popularity / popularity.sum())
        vectors = random.standard_normal((ids, shape.dim)) * np.sqrt(shape.signal) * shape.dim**-0.25
        sides.append((index, vectors[index], shape.bias * random.standard_normal(ids)[index]))
    (users, u, user_bias), (items, v, item_bias) = sides
    logit = np.sum(u * v, axis=1) + user_bias + item_bias + shape.offset
    if shape.scale is None:
        value = (random.random(shape.rows) < 1 / (1 + np.exp(-logit))).astype(float)
    else:
        low, high, step = shape.scale
        # With a unit of the logit a sixth of the scale, few values are cut off.
        exact = (high - low) / 6 * (logit + 3 + random.standard_normal(shape.rows))
        value = np.clip(low + np.round(exact / step) * step, low, high)
    return pl.DataFrame({"user": users, "item": items, "value": value, "time": np.arange(shape.rows), "truth": logit})


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
        "hard-labels": part(label={"column": "value", "threshold": 4.0}),
    }


def _clicks(**shape: Any) -> Callable[[], Log]:
    return lambda: Log(drawn(Shape(**shape)), **_CLICKS)


def _on_scale(threshold: float, scale: tuple[float, float, float], **shape: Any) -> Callable[[], Log]:
    low, high, _ = scale
    label = {"column": "value", "threshold": threshold, "scale": [low, high], "soft_weight": 0.8}
    return lambda: Log(drawn(Shape(scale=scale, **shape)), label=label, threshold=threshold, scale=(low, high))


_CLICKS: dict[str, Any] = {"label": {"column": "value"}, "threshold": 1.0, "scale": (0.0, 1.0)}

_GENERATED: dict[str, Callable[[], Log]] = {
    "sparse": lambda: Log(generated(60_000, 1_500, 18_000, signal=1.0, exponent=0.8), **_CLICKS),
    "dense": lambda: Log(generated(60_000, 1_000, 100, signal=1.5, exponent=0.3), **_CLICKS),
    # Labels that depend little on chance.
    "clear": lambda: Log(generated(100_000, 2_000, 200, signal=4.0, exponent=0.5), **_CLICKS),
    "million": lambda: Log(generated(1_000_000, 6_000, 4_000, signal=1.0, exponent=0.8), **_CLICKS),
    # Thirteen times as many items as users, most of them rare.
    "rare-items": _on_scale(
        7.0, (1, 10, 1), rows=120_000, users=3_000, items=40_000, signal=0.6, bias=0.8, exponents=(0.9, 0.7), offset=0.3
    ),
    # Thousands of rows per item.
    "few-items": _on_scale(
        3.0,
        (-10, 10, 0.25),
        rows=200_000,
        users=8_000,
        items=40,
        signal=0.6,
        bias=0.5,
        exponents=(0.2, 0.1),
        offset=0.1,
    ),
    # Labels that depend mostly on chance.
    "noisy": _clicks(rows=100_000, users=2_000, items=1_000, signal=0.4, bias=0.2, exponents=(0.6, 0.6)),
    # Biases say nearly all that there is to know.
    "biases": _clicks(rows=100_000, users=3_000, items=3_000, signal=0.3, bias=1.0, exponents=(0.8, 0.8)),
    # Four rows per user.
    "short-users": _clicks(rows=100_000, users=30_000, items=500, signal=1.2, bias=0.6, exponents=(0.3, 0.8)),
    # Three in a hundred rows are positive.
    "rare-positives": _clicks(
        rows=300_000, users=5_000, items=2_000, signal=1.2, bias=0.6, exponents=(0.7, 0.8), offset=-4.5
    ),
}


def logs(input_file: Path | None) -> dict[str, Callable[[], Log]]:
    """Returns the logs by name; without a MovieLens file, generated logs only."""
    return {**(_of_movielens(input_file) if input_file else {}), **_GENERATED}
