from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import PipelineConfig
from pipeline.input import csv_files
from pipeline.input.interactions import LABEL, Interactions
from pipeline.input.ranges import make_interactions, split_input
from pipeline.rows import splits
from pipeline.rows.splits import CutInTime, given_cut, is_eval, needs_sample, quantile_cut
from pipeline.storage.matching import match_input

ROWS = 100_000


def config(seed: int = 1, **split: object) -> PipelineConfig:
    return PipelineConfig.model_validate(
        {
            "columns": {"user": "int64", "item": "string", "rating": "float32", "time": "int64"},
            "label": {"column": "rating"},
            "features": {"user": {"side": "user"}, "item": {"side": "item"}},
            "timestamp_column": "time",
            "split": split,
            "seed": seed,
        }
    )


def batch(rows: int = ROWS, file: int = 0, offset: int = 0, times: Sequence[int] = ()) -> Interactions:
    users = np.random.default_rng(0).integers(0, 1000, rows)
    items = pa.array([f"item {user % 77}" for user in users], pa.string())
    time = pa.array(times or range(rows), pa.int64())
    return Interactions(file, offset, pa.record_batch({"user": pa.array(users), "item": items, "time": time}), {})


def draw(fraction: float = 0.1, seed: int = 1, file: int = 0, offset: int = 0) -> npt.NDArray[np.bool_]:
    return is_eval(config(seed, eval_fraction=fraction), None, batch(file=file, offset=offset))


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.99])
def test_fraction(fraction: float) -> None:
    share = draw(fraction).mean()
    assert share == pytest.approx(fraction, abs=5 * np.sqrt(fraction * (1 - fraction) / ROWS))


@pytest.mark.parametrize("other", [{}, {"file": 1}, {"offset": 8 << 20}])
def test_the_same_row_is_in_the_same_split_at_any_place(other: dict[str, int]) -> None:
    np.testing.assert_array_equal(draw(), draw(**other))


def test_another_seed_gives_an_independent_split() -> None:
    assert (draw() & draw(seed=2)).mean() == pytest.approx(0.01, abs=0.002)


@pytest.mark.parametrize("column", ["user", "item", "time", LABEL])
def test_each_value_of_a_row_counts_but_the_label(column: str) -> None:
    """Rows that differ in one column may be in different splits; rows that differ only in the label may not."""
    rows = 20_000
    columns: dict[str, pa.Array] = {
        "user": pa.array(np.zeros(rows, np.int64)),
        "item": pa.array([""] * rows),
        LABEL: pa.array(np.zeros(rows, np.float32)),
        "time": pa.array(np.zeros(rows, np.int64)),
    }
    same = is_eval(config(eval_fraction=0.3), None, Interactions(0, 0, pa.record_batch(columns), {}))
    assert len(set(same.tolist())) == 1
    values = {"item": [str(n) for n in range(rows)], LABEL: (np.arange(rows) / rows).astype(np.float32)}
    columns[column] = pa.array(values.get(column, np.arange(rows)))
    mask = is_eval(config(eval_fraction=0.3), None, Interactions(0, 0, pa.record_batch(columns), {}))
    if column == LABEL:
        assert mask.tolist() == same.tolist()
        return
    assert mask.mean() == pytest.approx(0.3, abs=5 * np.sqrt(0.3 * 0.7 / rows))


def dealt(directory: Path, files: dict[str, str], **options: object) -> tuple[dict[tuple[object, ...], set[bool]], int]:
    """Reads files and returns the splits of each row, by its values, and the number of rows."""
    directory.mkdir()
    for name, lines in files.items():
        content = ("user,item,rating,time\n" + lines).encode()
        (directory / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    settings = PipelineConfig.model_validate({**config(eval_fraction=0.3).model_dump(), **options})
    splits_of: dict[tuple[object, ...], set[bool]] = {}
    count = 0
    for number, file in enumerate(match_input([str(directory / "*")])):
        for file_range in split_input((number, file), settings):
            for parse in file_range.blocks(settings):
                read = make_interactions(number, parse, settings)
                if read is not None:
                    for row, of_eval in zip(read.rows.to_pylist(), is_eval(settings, None, read), strict=True):
                        splits_of.setdefault(tuple(row.values()), set()).add(bool(of_eval))
                        count += 1
    return splits_of, count


def test_a_row_stays_in_its_split_however_the_log_is_dealt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(5)
    lines = [f"{draws.integers(30)},item {draws.integers(9)},{draws.integers(2)},{n // 2}\n" for n in range(2000)]
    lines += lines[:100]
    first, count = dealt(tmp_path / "one file", {"a.csv": "".join(lines)})
    assert count == 2100
    # Rows that say the same are on one side, and both sides have rows.
    assert {len(sides) for sides in first.values()} == {1}
    assert 0.2 < np.mean([True in sides for sides in first.values()]) < 0.4

    monkeypatch.setattr(csv_files, "RANGE_BYTES", 500)
    shuffled = draws.permutation(lines).tolist()
    others: dict[str, dict[str, str]] = {
        "small ranges": {"a.csv": "".join(lines)},
        "other order": {"a.csv": "".join(shuffled)},
        "compressed": {"a.csv.gz": "".join(lines)},
        "more files": {f"{n}.csv": "".join(lines[n::7]) for n in range(7)},
        "a file in front": {"0.csv": "1,new,1,99999\n" * 3, "a.csv": "".join(lines)},
        "a rejected row": {"a.csv": "x,y,z,0\n" + "".join(lines)},
    }
    for name, files in others.items():
        again, _ = dealt(tmp_path / name, files)
        assert {row: again[row] for row in first} == first, name

    window, kept = dealt(tmp_path / "window", {"a.csv": "".join(lines)}, window={"since": 300})
    assert 0 < kept < count
    assert window == {row: sides for row, sides in first.items() if isinstance(row[3], int) and row[3] >= 300}


def test_a_split_of_known_rows() -> None:
    """These splits must not change, so that a retraining with a later version keeps the eval rows."""
    assert np.flatnonzero(draw(0.1)[:60]).tolist() == [9, 17, 20, 29, 32, 38]


def test_no_rows() -> None:
    for split in ({}, {"method": "hash", "column": "user"}, {"method": "time", "since": 5}):
        options = config(**split)
        assert is_eval(options, given_cut(options), batch(0)).shape == (0,)


@pytest.mark.parametrize("column", ["user", "item"])
def test_hash_keeps_the_rows_of_a_token_together(column: str) -> None:
    options = config(method="hash", column=column, eval_fraction=0.3)
    one, other = batch(), batch(file=3, offset=99)
    chosen = {
        token
        for token, eval_row in zip(one.rows[column].to_pylist(), is_eval(options, None, one), strict=True)
        if eval_row
    }
    for rows in (one, other):
        expected = [token in chosen for token in rows.rows[column].to_pylist()]
        np.testing.assert_array_equal(is_eval(options, None, rows), expected)
    tokens = set(one.rows[column].to_pylist())
    assert len(chosen) / len(tokens) == pytest.approx(0.3, abs=5 * np.sqrt(0.3 * 0.7 / len(tokens)))
    # Another seed chooses other tokens.
    reseeded = config(2, method="hash", column=column, eval_fraction=0.3)
    assert (is_eval(options, None, one) != is_eval(reseeded, None, one)).any()


@pytest.mark.parametrize(("since", "cut"), [(17, 17), ("1970-01-02", 86_400), ("1970-01-01T00:01:00+00:01", 0)])
def test_time_since(since: Any, cut: int) -> None:
    options = config(method="time", since=since)
    assert given_cut(options) == cut
    assert not needs_sample(options)
    assert is_eval(options, cut, batch(3, times=[cut - 1, cut, cut + 1])).tolist() == [False, True, True]


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=40), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]))
def test_quantile_cut(times: list[int], fraction: float) -> None:
    """The eval rows are the largest set of whole moments at the end that is at most the fraction."""
    cut = quantile_cut(np.array(times), fraction)
    chosen = [time for time in times if time >= cut]
    assert len(chosen) <= int(len(times) * fraction)
    earlier = [time for time in times if time < cut]
    if earlier:
        assert len(chosen) + earlier.count(max(earlier)) > int(len(times) * fraction)


def cut_of(batches: list[Interactions], expected: list[int]) -> None:
    with beam.Pipeline(FnApiRunner()) as pipeline:
        cut = pipeline | beam.Create(batches) | CutInTime(config(method="time", eval_fraction=0.2))
        assert_that(cut, equal_to(expected))


def test_cut_in_time_over_batches() -> None:
    shuffled = np.random.default_rng(3).permutation(1000)
    batches = [batch(100, file=number, times=shuffled[number * 100 :][:100].tolist()) for number in range(10)]
    cut_of(batches, [800])


def test_cut_in_time_without_rows() -> None:
    cut_of([batch(0)], [0])


def test_cut_in_time_by_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cut depends only on the places of rows, not on how they are put into batches."""
    monkeypatch.setattr(splits, "SAMPLE_ROWS", 4000)
    shuffled = np.random.default_rng(3).permutation(20_000)
    batches = [batch(2000, file=number, times=shuffled[number * 2000 :][:2000].tolist()) for number in range(10)]
    sample = splits._smallest(splits._smallest([next(splits._sample_timestamps(p, config()))]) for p in batches)
    again = splits._smallest([next(splits._sample_timestamps(p, config())) for p in reversed(batches)])
    assert len(sample[1]) == 4000
    assert sorted(sample[1]) == sorted(again[1])
    assert quantile_cut(sample[1], 0.2) == pytest.approx(16_000, abs=5 * 20_000 * np.sqrt(0.2 * 0.8 / 4000))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"method": "hash"}, "`column` names the feature to hash"),
        ({"method": "hash", "column": "rating"}, "`split.column` should be one of"),
        ({"method": "random", "column": "user"}, "`column` names the feature to hash"),
        ({"since": 5}, "`since` has no meaning with `method: random`"),
        ({"method": "time", "since": 5, "eval_fraction": 0.2}, "give either `since` or `eval_fraction`"),
    ],
)
def test_refusals(split: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**split)
