from __future__ import annotations

import csv
import io
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from pipeline.input.interactions import Interactions
from pipeline.input.parsing import Rejected
from pipeline.output.rejected import HEADER, WriteRejected, num_files

NAMES = [f"logs/{name}.csv" for name in ("a,b", "ü")]
FILES = 10
ROWS = pa.record_batch({"user": [1]})
TEXTS = [b"1,2", b'"', b'a"b', b"\xff\xfe", b"a\rb", b"a\0b", "ü 日本".encode(), b" x ", b"x" * 100_000]


def write(directory: Path, batches: list[Interactions]) -> list[str]:
    """Runs the transform and returns the contents of its files, in the order of their names."""
    paths = sorted({f"rejected/part-{(b.file + b.offset) % FILES:05d}.csv" for b in batches if b.rejected})
    with beam.Pipeline(FnApiRunner()) as pipeline:
        written = pipeline | beam.Create(batches) | WriteRejected(str(directory), str(directory / ".tmp"), NAMES, FILES)
        assert_that(written | beam.Map(lambda file: file.name), equal_to(paths))
        sizes = written | "CompareSizes" >> beam.Filter(
            lambda file: (directory / file.name).stat().st_size != file.bytes
        )
        assert_that(sizes, equal_to([]), "sizes")
    assert sorted(str(path.relative_to(directory)) for path in directory.glob("rejected/*")) == paths
    return [(directory / path).read_bytes().decode("utf-8", "surrogateescape") for path in paths]


def test_every_rejected_row_with_its_reason_its_place_and_its_bytes(tmp_path: Path) -> None:
    first = [Rejected(10 * place, "bad, very", text) for place, text in enumerate(TEXTS)]
    batches = [
        Interactions(1, 20, ROWS, [Rejected(25, "worse", b"y")]),
        Interactions(0, 1000, ROWS, [Rejected(1003, "worse", b"x"), Rejected(1009, "bad", b"z")]),
        Interactions(0, 0, ROWS, first),
        Interactions(1, 0, ROWS, []),
    ]
    rows = [row for text in write(tmp_path, batches) for row in csv.reader(io.StringIO(text, newline=""))]
    headers = [row for row in rows if row == list(HEADER)]
    # Batches 0 and 1000 of the first file share a part, in the order of the input.
    assert len(headers) == 2
    assert [row for row in rows if row != list(HEADER)] == [
        *([r.reason, "logs/a,b.csv", str(r.offset), r.text.decode("utf-8", "surrogateescape")] for r in first),
        ["worse", "logs/a,b.csv", "1003", "x"],
        ["bad", "logs/a,b.csv", "1009", "z"],
        ["worse", "logs/ü.csv", "25", "y"],
    ]


def test_the_same_bytes_in_any_order_of_the_batches(tmp_path: Path) -> None:
    batches = [Interactions(0, 10 * place, ROWS, [Rejected(10 * place, "bad", b"x")]) for place in range(20)]
    assert write(tmp_path / "a", batches) == write(tmp_path / "b", batches[::-1])


def test_a_large_input_has_more_files() -> None:
    assert [num_files(size) for size in (0, 10**9, 2 * 10**12)] == [10, 10, 465]


def test_nothing_rejected_writes_nothing(tmp_path: Path) -> None:
    assert write(tmp_path, [Interactions(0, 0, ROWS, [])]) == []
    assert not list(tmp_path.iterdir())
