from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from pipeline.input import interactions
from pipeline.input.interactions import Interactions, RejectedRows, by_reason
from pipeline.input.parsing import Rejected
from pipeline.output.rejected import FILES, HEADER, WriteRejected

NAMES = [f"logs/{name}.csv" for name in ("a,b", "ü")]
ROWS = pa.record_batch({"user": [1]})
TEXTS = [b"1,2", b'"', b'a"b', b"\xff\xfe", b"a\rb", b"a\0b", "ü 日本".encode(), b" x ", b"x" * 100_000]


def batch(file: int, offset: int, rejected: list[Rejected]) -> Interactions:
    return Interactions(file, offset, ROWS, by_reason(file, offset, rejected))


def write(directory: Path, batches: list[Interactions], not_kept: list[dict[str, int]] | None = None) -> list[str]:
    """Runs the transform and returns the contents of its files, in the order of their names."""
    paths = sorted({f"rejected/part-{(b.file + b.offset) % FILES:05d}.csv" for b in batches if b.rejected})
    with beam.Pipeline(FnApiRunner()) as pipeline:
        written = pipeline | beam.Create(batches) | WriteRejected(str(directory), str(directory / ".tmp"), NAMES)
        assert_that(written.files | beam.Map(lambda file: file.name), equal_to(paths))
        sizes = written.files | "CompareSizes" >> beam.Filter(
            lambda file: (directory / file.name).stat().st_size != file.bytes
        )
        assert_that(sizes, equal_to([]), "sizes")
        dropped = written.tallies | beam.Map(lambda tally: dict(tally.not_kept)) | beam.Filter(bool)
        assert_that(dropped, equal_to(not_kept or []), "not kept")
    assert sorted(str(path.relative_to(directory)) for path in directory.glob("rejected/*")) == paths
    return [(directory / path).read_bytes().decode("utf-8", "surrogateescape") for path in paths]


def rows_of(texts: list[str]) -> list[list[str]]:
    """Returns the rows of files without the headers."""
    rows = [row for text in texts for row in csv.reader(io.StringIO(text, newline=""))]
    assert sum(row == list(HEADER) for row in rows) == len(texts)
    return [row for row in rows if row != list(HEADER)]


def test_every_rejected_row_with_its_reason_its_place_and_its_bytes(tmp_path: Path) -> None:
    first = [Rejected(10 * place, "bad, very", text) for place, text in enumerate(TEXTS)]
    batches = [
        batch(1, 20, [Rejected(25, "worse", b"y")]),
        batch(0, 1000, [Rejected(1003, "worse", b"x"), Rejected(1009, "bad", b"z")]),
        batch(0, 0, first),
        batch(1, 0, []),
    ]
    texts = write(tmp_path, batches)
    # Batches 0 and 1000 of the first file share a part, in the order of the input.
    assert len(texts) == 2
    assert rows_of(texts) == [
        *([r.reason, "logs/a,b.csv", str(r.offset), r.text.decode("utf-8", "surrogateescape")] for r in first),
        ["worse", "logs/a,b.csv", "1003", "x"],
        ["bad", "logs/a,b.csv", "1009", "z"],
        ["worse", "logs/ü.csv", "25", "y"],
    ]


def test_the_same_bytes_in_any_order_of_the_batches(tmp_path: Path) -> None:
    batches = [batch(0, 10 * place, [Rejected(10 * place, "bad", b"x")]) for place in range(20)]
    assert write(tmp_path / "a", batches) == write(tmp_path / "b", batches[::-1])


def test_nothing_rejected_writes_nothing(tmp_path: Path) -> None:
    assert write(tmp_path, [batch(0, 0, [])]) == []
    assert not list(tmp_path.iterdir())


def test_a_log_of_bad_rows_keeps_a_sample_of_each_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker holds more than its bound, however long the log is."""
    monkeypatch.setattr(interactions, "MAX_KEPT_ROWS", 30)
    held, sent = [], []
    add = RejectedRows.add

    def counted(rows: RejectedRows, other: RejectedRows) -> None:
        sent.append(len(other.rows))
        add(rows, other)
        held.append(len(rows.rows))

    batches = [
        batch(0, 1000 * number, [Rejected(1000 * number + row, "bad", b"x%d" % row) for row in range(100)])
        for number in range(200)
    ]
    batches.append(batch(1, 0, [Rejected(place, "worse", b"y") for place in range(30)]))
    monkeypatch.setattr(RejectedRows, "add", counted)
    rows = rows_of(write(tmp_path / "a", batches, [{"bad": 20_000 - 30}]))
    assert (max(sent), max(held)) == (30, 60)
    assert {reason: sum(row[0] == reason for row in rows) for reason in ("bad", "worse")} == {"bad": 30, "worse": 30}
    # From all over the log.
    assert len({int(row[2]) // 1000 for row in rows if row[0] == "bad"}) > 20
    assert rows_of(write(tmp_path / "b", batches[::-1], [{"bad": 20_000 - 30}])) == rows


@pytest.mark.parametrize(("rows", "size"), [(10**9, 1000), (7, 10**9), (25, 100), (1, 1), (500, 10**9)])
def test_what_is_kept_does_not_depend_on_how_rows_are_put_together(
    monkeypatch: pytest.MonkeyPatch, rows: int, size: int
) -> None:
    draw = random.Random(1)
    # Also rows with the same text at the same place, of other files.
    rejected = [[Rejected(place, "bad", b"x" * (place % 20)) for place in range(40)] for _ in range(3)]
    monkeypatch.setattr(interactions, "MAX_KEPT_ROWS", rows)
    monkeypatch.setattr(interactions, "MAX_KEPT_BYTES", size)
    kept = set()
    for _ in range(20):
        sums = [by_reason(file, 0, [row])["bad"] for file, of_file in enumerate(rejected) for row in of_file]
        draw.shuffle(sums)
        while len(sums) > 1:
            # In groups of any size, as workers do.
            group = [sums.pop() for _ in range(min(len(sums), draw.randrange(2, 9)))]
            total = RejectedRows()
            for some in group:
                total.add(some)
            if draw.random() < 0.5:
                total.bound()
            sums.insert(0, total)
        sums[0].bound()
        assert sums[0].count == 120
        assert len(sums[0].rows) <= rows and sum(len(row.text) for row in sums[0].rows) <= size
        kept.add(tuple(sums[0].rows))
    assert len(kept) == 1
