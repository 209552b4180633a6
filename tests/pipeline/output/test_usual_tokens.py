"""Tokens of further features that go with each user or item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from pipeline.config import PipelineConfig
from pipeline.output.attempts import WrittenFile
from pipeline.output.coders import register_coders
from pipeline.output.usual_tokens import WriteUsualTokens
from pipeline.vocabulary.combinations import count_combinations
from pipeline.vocabulary.frequency import serialize
from pipeline.vocabulary.transform import as_lists
from tests.pipeline.preprocessing import make
from tests.pipeline.vocabulary.test_counts_cache import DAY, FIRST, midnight

GENRES = ["", "Drama", "Comédie", "a, b\tc"]
Row = tuple[int, str, int]


def random_rows(count: int, seed: int) -> list[Row]:
    draw = np.random.default_rng(seed)
    items, genres, decades = draw.zipf(1.3, count) % 40 - 10, draw.integers(0, 4, count), draw.integers(196, 203, count)
    return [(i, GENRES[g], d) for i, g, d in zip(items.tolist(), genres.tolist(), decades.tolist(), strict=True)]


def usual(rows: Sequence[Row]) -> dict[int, Row]:
    """Returns the most frequent row of each item; of equally frequent ones, that with the least text."""
    counts = Counter(rows)
    found: dict[int, Row] = {}
    for row in sorted(counts, key=lambda row: (-counts[row], "\n".join(map(str, row)).encode())):
        found.setdefault(row[0], row)
    return found


def batch(rows: Sequence[Row]) -> pa.RecordBatch:
    names = ["item", "genre", "decade"]
    return pa.RecordBatch.from_arrays(
        [pa.array(column, dtype) for column, dtype in zip(zip(*rows, strict=True), TYPES, strict=True)], names
    )


TYPES = (pa.int64(), pa.string(), pa.int64())


@pytest.mark.parametrize("partitions", [1, 7])
def test_the_most_frequent_combination_in_the_order_of_the_vocabulary(tmp_path: Path, partitions: int) -> None:
    register_coders()
    rows, known = random_rows(600, 1), random_rows(300, 2)
    expected = usual([*rows, *known])
    # An item that was too rare for the vocabulary has no line.
    vocabulary = sorted(expected, key=lambda item: (item * 7919) % 101)[:-1]
    path = tmp_path / "vocabulary.txt"
    path.write_text("".join(f"{item}\n" for item in vocabulary))
    genres = "".join(f"{expected[item][1]}\n" for item in vocabulary)
    decades = "".join(f"{expected[item][2]}\n" for item in vocabulary)
    names = ["item", "genre", "decade"]
    with TestPipeline() as pipeline:
        batches = pipeline | beam.Create([as_lists(batch(rows[start : start + 100])) for start in range(0, 600, 100)])
        counts = pipeline | "Known" >> beam.Create([serialize(count_combinations(batch(known), names))])
        written = batches | WriteUsualTokens(
            names,
            str(tmp_path / "dataset"),
            str(path),
            str(tmp_path / "tmp"),
            partitions,
            counts,
            pipeline | "After" >> beam.Create([None]),
        )
        sizes = {"genre": len(genres.encode()), "decade": len(decades)}
        assert_that(written, equal_to([WrittenFile(f"usual/{name}.txt", size) for name, size in sizes.items()]))
    assert (tmp_path / "dataset" / "usual" / "genre.txt").read_text() == genres
    assert (tmp_path / "dataset" / "usual" / "decade.txt").read_text() == decades


def options(log: Path, since: int, until: int, **fields: Any) -> PipelineConfig:
    return PipelineConfig.model_validate(
        {
            "input": {"patterns": [str(log / "*.csv")]},
            "columns": {"userId": "int64", "itemId": "int64", "genre": "string", "decade": "int64", "time": "int64"},
            "label": "implicit",
            "features": {
                "userId": {"side": "user"},
                "itemId": {"side": "item"},
                "genre": {"side": "item", "frequency_threshold": 1},
                "decade": {"side": "item", "encoding": "hashing"},
            },
            "timestamp_column": "time",
            "window": {"since": midnight(since), "until": midnight(until)},
            "split": {"method": "time", "since": midnight(until - 1)},
            **fields,
        }
    )


@pytest.mark.slow
def test_an_item_without_new_rows_keeps_its_tokens(tmp_path: Path) -> None:
    """A night has only the counts of old rows; its dataset says the same as one of all rows."""
    log = tmp_path / "log"
    log.mkdir()
    rows = [random_rows(200, seed) for seed in range(3)]
    # Rows of the first day alone, of an item that no later day has.
    rows[0] += [(77, "Drama", 199)] * 3 + [(77, "", 199)] * 2
    for day, of_day in enumerate(rows):
        lines = [f'{n % 9},{i},"{g}",{d},{(FIRST + day) * DAY + n}\n' for n, (i, g, d) in enumerate(of_day)]
        (log / f"{day}.csv").write_text("userId,itemId,genre,decade,time\n" + "".join(lines))
    cache = str(tmp_path / "counts")
    make(tmp_path / "night", options(log, 1, 3, counts_cache=cache, vocabulary_since=midnight(0)))
    manifest = make(tmp_path / "whole", options(log, 0, 3))
    assert {name: feature.usual_path for name, feature in manifest.features.items()} == {
        "userId": None,
        "itemId": None,
        "genre": "usual/genre.txt",
        "decade": "usual/decade.txt",
    }
    vocabulary = (tmp_path / "night" / "vocabulary" / "itemId.txt").read_text().splitlines()
    for name in ("genre", "decade"):
        of_items = (tmp_path / "night" / "usual" / f"{name}.txt").read_text()
        assert of_items == (tmp_path / "whole" / "usual" / f"{name}.txt").read_text()
        assert of_items.splitlines()[vocabulary.index("77")] == {"genre": "Drama", "decade": "199"}[name]
    expected = usual([(item, genre or "(missing)", decade) for of_day in rows[:2] for item, genre, decade in of_day])
    genres = (tmp_path / "whole" / "usual" / "genre.txt").read_text().splitlines()
    assert genres == [expected[int(item)][1] for item in vocabulary]
