"""Compares a plan with what is there."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from pipeline.config import PipelineConfig
from pipeline.manifest import DotbiasError
from pipeline.planning import estimate as plan
from pipeline.planning.estimate import make_plan
from pipeline.planning.population import Population, estimate_population
from pipeline.planning.sizing import JOIN_PARTITIONS, Size, dataflow_cost, feature_to_join, worker_type
from pipeline.vocabulary.sorted_ranges import MAX_RANGES

# Within this factor of the truth.
FACTOR = 1.5
ROWS = 400_000


def log(order: str) -> pa.Table:
    """Makes a log with a long tail of rare users, and few items, all of which occur early."""
    draws = np.random.default_rng(11)
    users, items = (power_law(draws, *shape) for shape in ((120_000, 0.8), (5000, 1.0)))
    table = pa.table({"user": users * 7919, "item": items, "rating": draws.integers(0, 2, ROWS)})
    return table.sort_by("user") if order == "by user" else table


def power_law(draws: np.random.Generator, size: int, exponent: float, rows: int = ROWS) -> npt.NDArray[np.int64]:
    cumulative = np.cumsum((np.arange(size) + 1.0) ** -exponent)
    return np.searchsorted(cumulative / cumulative[-1], draws.random(rows))


def config(path: Path, form: str, threshold: int) -> PipelineConfig:
    feature = {"frequency_threshold": threshold}
    return PipelineConfig.model_validate(
        {
            "input": {"patterns": str(path), "format": form},
            "columns": {"user": "int64", "item": "int64", "rating": "float32"},
            "label": {"column": "rating"},
            "features": {"user": {"side": "user", **feature}, "item": {"side": "item", **feature}},
            "split": {"eval_fraction": 0.1},
            "rows_per_shard": 10_000,
        }
    )


def write_csv(rows: pa.Table, path: Path) -> None:
    pa.csv.write_csv(rows, path)


def write_parquet(rows: pa.Table, path: Path) -> None:
    pa.parquet.write_table(rows, path, row_group_size=5000)


@pytest.mark.parametrize("threshold", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("order", ["by time", "by user"])
@pytest.mark.parametrize(
    ("write", "form"),
    [(write_csv, "csv"), (write_parquet, "parquet")],
    ids=["csv", "parquet"],
)
def test_the_plan_is_near_the_truth(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[pa.Table, Path], None],
    form: str,
    order: str,
    threshold: int,
) -> None:
    # A tenth of the log is sampled.
    monkeypatch.setattr(plan, "SAMPLE_BYTES", 1 << 13)
    monkeypatch.setattr(plan, "NUM_SAMPLES", 60 if form == "csv" else 16)
    rows, path = log(order), tmp_path / "log"
    write(rows, path)
    made = make_plan(config(path, form, threshold))
    assert made.sampled_rows < 0.4 * ROWS
    within(made.rows_read, ROWS)
    within(made.size.rows, ROWS)
    within(made.size.shards, ROWS / 10_000)
    train = np.random.default_rng(3).random(ROWS) < 0.9
    for name in ("user", "item"):
        counts = np.unique(rows[name].to_numpy()[train], return_counts=True)[1]
        within(made.size.tokens[name], int((counts >= threshold).sum()))


def within(planned: float, true: float) -> None:
    assert true / FACTOR <= planned <= true * FACTOR


def test_compressed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of compressed files are estimated from the beginnings of the files."""
    monkeypatch.setattr(plan, "COMPRESSED_SAMPLE_BYTES", 1 << 22)
    draws, rows = np.random.default_rng(5), 500_000
    for number in range(3):
        users = draws.integers(0, 10**9, rows)
        text = "user,item,rating\n" + "".join(f"{user},{user % 1000},1\n" for user in users.tolist())
        (tmp_path / f"{number}.csv.gz").write_bytes(gzip.compress(text.encode(), 1))
    made = make_plan(config(tmp_path / "*.gz", "csv", 1))
    assert made.sampled_rows < rows * 3 * 0.7
    within(made.rows_read, 3 * rows)


def test_a_small_log_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("user,item,rating\n" + "".join(f"{n % 7},{n % 3},1\n" for n in range(100)) + "x,1,1\n")
    made = make_plan(config(path, "csv", 2))
    assert (made.rows_read, made.size.rows, made.size.tokens) == (101, 100, {"user": 7, "item": 3})
    assert made.rejected_fraction == pytest.approx(1 / 101)


@pytest.mark.parametrize("content", ["", "user,item,rating\n", "user,item,rating\nx,y,z\n"])
def test_nothing_to_plan(tmp_path: Path, content: str) -> None:
    path = tmp_path / "log"
    path.write_text(content)
    with pytest.raises(DotbiasError, match="sampled rows would be kept"):
        make_plan(config(path, "csv", 1))


@pytest.mark.parametrize("population", [Population(5000, 0.0), Population(20_000, 0.9), Population(10**6, 0.5)])
def test_population_is_found_again(population: Population) -> None:
    draws = np.random.default_rng(7)

    def sample(rows: int) -> npt.NDArray[np.uint64]:
        return power_law(draws, int(population.size), population.exponent, rows).astype(np.uint64)

    ranges = [np.unique(sample(1500)) for _ in range(64)]
    estimated = estimate_population(ranges)
    counts = np.bincount(sample(10**6).astype(np.int64))
    presences = float(np.mean([len(tokens) for tokens in ranges])) * 10**6 / 1500
    for times in (1, 2, 3):
        within(estimated.at_least(presences, times), int((counts >= times).sum()))


def test_population_that_never_repeats() -> None:
    ranges = [np.arange(n * 100, n * 100 + 100, dtype=np.uint64) for n in range(8)]
    assert estimate_population(ranges).distinct(100_000) == pytest.approx(100_000, rel=0.01)


def test_sizes() -> None:
    size = Size(3_000_001, {"user": 10**6, "item": 10**5}, {"user": "int64", "item": "string"}, 12)
    assert size.shards == 4
    # Eleven batches, each with a message to each shard.
    assert size.messages == 11 * 4
    # Of 68,000 rows each, so they are compressed.
    assert size.row_bytes == 3_000_001 * 12 * 0.75 + 44 * 300
    few_rows = replace(size, rows_per_shard=1000)
    assert few_rows.row_bytes == 3_000_001 * 12 + 11 * 3001 * 300
    assert size.vocabulary_bytes == 115 * 10**6
    assert size.table_bytes == 30 * 10**6 + 57 * 10**5
    # More workers share the rows, not the vocabulary's last step.
    few, many = dataflow_cost(size, 4), dataflow_cost(size, 4000)
    assert few.wall_seconds > many.wall_seconds > 1.4 * size.lone_cpu_seconds
    assert few.shuffled_gib == many.shuffled_gib


def test_a_joined_vocabulary() -> None:
    table = Size(10**9, {"user": 2 * 10**8, "item": 10**5}, {"user": "int64", "item": "int64"}, 12)
    assert feature_to_join(table) == "user"
    join = replace(table, joined=("user",))
    assert feature_to_join(join) is None
    assert worker_type(join) == "n2-standard-4"
    assert join.vocabulary_bytes < table.vocabulary_bytes / 100
    assert join.table_bytes == 30 * 10**5
    # A row with a token of 8 bytes for an index of 4, and its shard; a question and an answer.
    assert join.shuffled_bytes - table.shuffled_bytes == 10**9 * ((12 - 4 + 8 + 4) + 8 + 4)
    assert join.lone_cpu_seconds < table.lone_cpu_seconds / 100
    assert feature_to_join(Size(10**9, {"user": 10**7}, {"user": "int64"}, 12, rows_per_shard=10**8)) is None


def test_the_plan_knows_the_partitions_of_a_join() -> None:
    assert JOIN_PARTITIONS == MAX_RANGES


def test_a_shuffle_in_two_steps() -> None:
    one = Size(5 * 10**9, {"user": 10**6}, {"user": "int64"}, 12)
    two = Size(6 * 10**9, {"user": 10**6}, {"user": "int64"}, 12)
    assert (one.two_steps, two.two_steps) == (False, True)
    # 20,000 batches; 78 shards a group.
    assert two.messages == 20_000 * 77 + (20_000 + 77) * 78 < one.messages / 20
    # Rows are sent twice, the first time with their shard.
    assert two.row_bytes > two.rows * (12 + 12 + 4) * 0.75


@pytest.mark.parametrize(
    ("tokens", "worker"), [(10**6, "n2-standard-4"), (5 * 10**7, "n2-highmem-4"), (2 * 10**8, "n2-highmem-16")]
)
def test_worker_types(tokens: int, worker: str) -> None:
    assert worker_type(Size(10**9, {"user": tokens}, {"user": "int64"}, 12)) == worker
