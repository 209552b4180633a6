from __future__ import annotations

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import PipelineConfig
from pipeline.input.interactions import LABEL, Interactions
from pipeline.rows.duplicates import LastByTime, last_positions

CONFIG = PipelineConfig.model_validate(
    {
        "columns": {"user": "int64", "item": "string", "rating": "float32", "time": "int64"},
        "label": {"column": "rating"},
        "features": {"user": {"side": "user"}, "item": {"side": "item"}},
        "timestamp_column": "time",
        "duplicates": "last",
    }
)

_rows = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.integers(0, 4)), max_size=40)


@given(_rows)
def test_last_positions(rows: list[tuple[int, str, int]]) -> None:
    expected: dict[tuple[int, str], tuple[int, int]] = {}
    for position, (user, item, time) in enumerate(rows):
        expected[user, item] = max(expected.get((user, item), (time, position)), (time, position))
    tokens = [pa.chunked_array([pa.array([row[column] for row in rows], dtype)]) for column, dtype in COLUMNS]
    last = last_positions(tokens, np.array([row[2] for row in rows], np.int64))
    assert last.tolist() == sorted(position for _, position in expected.values())


COLUMNS = [(0, pa.int64()), (1, pa.string())]


def batch(file: int, offset: int, rows: list[tuple[int, str, float, int]]) -> Interactions:
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[], [], [], []]
    types = [pa.int64(), pa.string(), pa.float32(), pa.int64()]
    arrays = [pa.array(column, dtype) for column, dtype in zip(columns, types, strict=True)]
    names = ["user", "item", LABEL, "time"]
    return Interactions(file, offset, pa.RecordBatch.from_arrays(arrays, names=names), {}, out_of_window=3)


@pytest.mark.parametrize("num_partitions", [1, 2, 7])
@pytest.mark.parametrize("order", [1, -1])
def test_over_batches(num_partitions: int, order: int) -> None:
    """The later row is decided by time, then by place in the input, never by the order of arrival."""
    batches = [
        batch(0, 0, [(1, "a", 0.1, 5), (1, "b", 0.2, 5), (2, "a", 0.3, 5)]),
        batch(0, 100, [(1, "a", 0.4, 5), (2, "a", 0.5, 4)]),
        batch(1, 0, [(1, "b", 0.6, 9), (1, "b", 0.7, 8)]),
        batch(1, 50, []),
    ][::order]
    with beam.Pipeline(FnApiRunner()) as pipeline:
        left = pipeline | beam.Create(batches) | LastByTime(CONFIG, num_partitions)
        rows = left | beam.FlatMap(lambda b: [round(label, 3) for label in b.rows[LABEL].to_pylist()])
        counts = left | "Count" >> beam.Map(lambda b: b.duplicates) | beam.CombineGlobally(sum)
        files = left | "Files" >> beam.Map(lambda b: b.file < num_partitions and b.out_of_window == 0)
        assert_that(rows, equal_to([0.4, 0.6, 0.3]))
        assert_that(counts, equal_to([4]), label="counts")
        assert_that(files | beam.Distinct(), equal_to([True]), label="files")
