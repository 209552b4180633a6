"""Checks that ranges of a file together have exactly the lines of the file, however it is cut."""

from __future__ import annotations

import bz2
import csv
import gzip
import os
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import pytest
import zstandard
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.config import PipelineConfig
from pipeline.input import csv_files
from pipeline.input.csv_files import read_lines
from pipeline.input.interactions import Interactions
from pipeline.input.parsing import BOM, UNBALANCED_QUOTE
from pipeline.input.ranges import split_input, take_window
from pipeline.input.sources import ReadInteractions, Source, _ReadRange
from pipeline.storage.matching import match_input
from pipeline.storage.paths import InputError

HEADER = b"user,item,rating\n"
Change = Callable[[bytes], bytes]


def config(**input_options: object) -> PipelineConfig:
    return PipelineConfig.model_validate(
        {
            "input": input_options,
            "columns": {"user": "int64", "item": "string", "rating": "float32"},
            "label": {"column": "rating"},
            "features": {"user": {"side": "user"}, "item": {"side": "item"}},
        }
    )


def read(path: Path, options: PipelineConfig) -> list[tuple[int, bytes]]:
    """Returns (offset, lines) of all ranges of a file."""
    (file,) = match_input([str(path)])
    return [block for file_range in split_input((0, file), options) for block in read_lines(file_range)]


def source(path: Path) -> Source:
    files = match_input([str(path)])
    return Source(files, files)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sources") / "log.csv"


# Small alphabets make many line ends, and many ranges that end on one.
_texts = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r\n", b"\n\n", b'"', b"defgh"]), max_size=30).map(b"".join)


@settings(max_examples=300)
@given(_texts, st.integers(1, 12), st.sampled_from([b"", HEADER, BOM + HEADER, b"\r\n\n" + HEADER]))
@example(b"ab\ncd\n", 3, b"")
def test_any_cut_reads_every_line_once(scratch: Path, text: bytes, range_bytes: int, header: bytes) -> None:
    scratch.write_bytes(header + text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_files, "RANGE_BYTES", range_bytes)
        check(read(scratch, config(has_header=bool(header))), text, len(header))


@given(
    st.lists(_texts, min_size=1, max_size=3), st.integers(1, 12), st.sampled_from([b"", HEADER, BOM + b"\n" + HEADER])
)
def test_any_gzip_reads_every_line_once(scratch: Path, texts: list[bytes], range_bytes: int, header: bytes) -> None:
    """Reads several members too, as `cat a.gz b.gz` makes them."""
    scratch.write_bytes(b"".join(gzip.compress(part) for part in [header, *texts]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_files, "RANGE_BYTES", range_bytes)
        check(read(scratch, config(has_header=bool(header))), b"".join(texts), len(header))


def check(blocks: list[tuple[int, bytes]], text: bytes, start: int) -> None:
    assert b"".join(lines for _, lines in blocks) == text
    end = start
    for offset, lines in blocks:
        assert offset == end
        end += len(lines)
    # Whole lines only.
    assert all(lines.endswith(b"\n") for _, lines in blocks[:-1])


@pytest.mark.parametrize(
    "header",
    [
        b"user,item,rating\n",
        b"user,item,rating\r\n",
        BOM + b'"user","item","rating"\n',
        # Another order, more columns, and names that occur twice but are not read.
        b"x,rating,x,item,user,\n",
        b"\n\nuser,item,rating\n",
        # Spaces around names.
        b"user, item , rating\n",
    ],
)
def test_headers(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "log.csv"
    names = header.decode().removeprefix("\ufeff").replace('"', "").strip().split(",")
    values = {"user": "7", "item": "a", "rating": "1"}
    path.write_bytes(header + ",".join(values.get(name.strip(), "-") for name in names).encode())
    check_interactions(path, config(), [(7, "a", 1.0)], [])


def test_a_name_that_is_there_exactly_is_not_taken_from_another_column(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"user, item,item,rating\n7,no,a,1\n")
    check_interactions(path, config(), [(7, "a", 1.0)], [])


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            b"user,item\n",
            "log.csv: the header has no column 'rating'. It reads: 'user,item'. Correct `pipeline.columns`",
        ),
        (b"user,item,rating,item\n", "log.csv: the header has more than one column 'item'"),
        (b"1,a,0.5\n", "or set `pipeline.input.has_header=false` if there is no header"),
        (b"user;item;rating\n", "It reads: 'user;item;rating'"),
        (b"\xff\xfeu\0s\0", "log.csv: the header is not UTF-8"),
        # Carriage returns as line ends.
        (b"user,item,rating\r1,a,1\r", "log.csv: the header is not a line of CSV"),
        (b"a" * 200_000, "log.csv: the header is not a line of CSV"),
    ],
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_headers_that_do_not_fit(tmp_path: Path, header: bytes, message: str, compress: Change) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(compress(header))
    with pytest.raises(InputError) as error:
        read(path, config())
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "has_header", "rows", "reasons"),
    [
        (b"", True, [], []),
        (b"", False, [], []),
        (HEADER, True, [], []),
        (HEADER.strip(), True, [], []),
        (BOM, True, [], []),
        (b"\n\n", True, [], []),
        (b"1,a,0.5", False, [(1, "a", 0.5)], []),
        (BOM + b"1,a,0.5\r\n\r\n2,b,1\r\n", False, [(1, "a", 0.5), (2, "b", 1.0)], []),
        (HEADER + b"1,a,0\n2,b\n", True, [(1, "a", 0.0)], ["wrong number of columns"]),
        (
            HEADER + b"1,a,1.5\nx,a,1\n2,b,-0.5\n3,c,1\n4,d,nan\n",
            True,
            [(3, "c", 1.0)],
            [
                "rating: the label it makes is not in [0, 1]",
                "user: not an int64",
                "rating: the label it makes is not in [0, 1]",
                "rating: the label it makes is not in [0, 1]",
            ],
        ),
    ],
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_rows_and_reasons(
    tmp_path: Path,
    content: bytes,
    has_header: bool,
    rows: list[object],
    reasons: list[str],
    compress: Change,
) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(compress(content))
    check_interactions(path, config(has_header=has_header), rows, reasons)


def check_interactions(path: Path, options: PipelineConfig, rows: list[object], reasons: list[str]) -> None:
    """Reads through the DoFn, without Beam."""
    (file,) = match_input([str(path)])
    reader = _ReadRange(options, "analyze")
    reader.start_bundle()
    batches = [batch for file_range in split_input((0, file), options) for batch in reader.process(file_range)]
    batches += [windowed.value for windowed in reader.finish_bundle()]
    assert [fate for batch in batches for fate in fates_of(batch)] == [*rows, *reasons]


def fates_of(batch: Interactions) -> list[object]:
    return [*(tuple(row.values()) for row in batch.rows.to_pylist()), *reasons_of(batch)]


def reasons_of(batch: Interactions) -> list[str]:
    """Returns the reasons of the rejected rows, in the order of the file."""
    rows = ((row.offset, reason) for reason, rejected in batch.rejected.items() for row in rejected.rows)
    return [reason for _, reason in sorted(rows)]


def compressed_rows() -> bytes:
    return gzip.compress(HEADER + b"".join(b"%d,a,1\n" % row for row in range(100_000)))


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:5],
        lambda data: data[:1000],
        # Only the checksum is missing.
        lambda data: data[:-8],
        lambda data: data[:-1],
        lambda data: flip(data, 0 + 3),
        lambda data: flip(data, len(data) // 2),
        lambda data: flip(data, len(data) - 6),
        lambda data: data + b"what is this",
        lambda data: data + data[: len(data) // 2],
    ],
)
def test_damaged_gzip(tmp_path: Path, damage: Change) -> None:
    """A damaged file is an error, never a short read."""
    path = tmp_path / "log.csv.gz"
    path.write_bytes(damage(compressed_rows()))
    with pytest.raises(InputError, match=r"log\.csv\.gz cannot be read to its end: .+ Replace the file"):
        read(path, config())


def test_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(gzip.compress(HEADER + b"1,a,1\n"))
    assert read(path, config()) == [(len(HEADER), b"1,a,1\n")]
    path = tmp_path / "log.csv.gz"
    path.write_bytes(HEADER + b"1,a,1\n")
    assert read(path, config()) == [(len(HEADER), b"1,a,1\n")]


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(HEADER + b"1,a,1\n2"), lambda path: os.utime(path)])
def test_a_file_that_has_changed_since(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(HEADER + b"1,a,1\n")
    (file,) = match_input([str(path)])
    change(path)
    with pytest.raises(InputError, match=r"log\.csv has changed since the job began"):
        list(split_input((0, file), config()))


def test_a_file_that_vanishes_or_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(HEADER + b"1,a,1\n" * 10)
    (file,) = match_input([str(path)])
    (file_range,) = split_input((0, file), config())
    path.write_bytes(HEADER + b"1,a,1\n" * 9)
    with pytest.raises(InputError, match=r"log\.csv cannot be read to its end: it ends at byte 71, not 77"):
        list(read_lines(file_range))
    path.unlink()
    with pytest.raises(InputError, match=r"log\.csv cannot be read to its end: .*No such file"):
        list(read_lines(file_range))
    with pytest.raises(InputError, match=r"log\.csv' matches no file"):
        list(split_input((0, file), config()))


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress: Change) -> None:
    monkeypatch.setattr(csv_files, "RANGE_BYTES", 100)
    monkeypatch.setattr(csv_files, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "log.csv"
    path.write_bytes(compress(HEADER + b"1,a,1\n" * 10 + b"x" * 5000))
    with pytest.raises(InputError, match=r"the line at byte 1\d\d goes on for more than 1,000 bytes"):
        read(path, config())


@pytest.mark.parametrize("compress", [bz2.compress, zstandard.ZstdCompressor(write_checksum=True).compress])
def test_other_compressions(tmp_path: Path, compress: Change) -> None:
    """A compression is known by the first bytes; a cut file is an error, never a short read."""
    content = HEADER + b"1,a,1\n" * 1000
    path = tmp_path / "log"
    path.write_bytes(compress(content) + compress(b"2,b,0\n"))
    assert b"".join(lines for _, lines in read(path, config())) == content[len(HEADER) :] + b"2,b,0\n"
    for damaged in (compress(content)[:-3], flip(compress(content), len(compress(content)) // 2)):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="log cannot be read to its end"):
            read(path, config())


_records = st.lists(
    st.tuples(st.integers(0, 9), st.text(st.sampled_from('a,"\n\r '), min_size=1, max_size=6), st.booleans()),
    max_size=20,
)


@given(_records, st.integers(1, 40), st.sampled_from(["\n", "\r\n"]))
def test_values_with_line_ends(
    scratch: Path, records: list[tuple[int, str, bool]], range_bytes: int, line_end: str
) -> None:
    """Values of columns that are not read may contain line ends too."""
    with scratch.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator=line_end, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(["comment", "user", "item", "rating"])
        writer.writerows([comment, user, "i", int(rating)] for user, comment, rating in records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_files, "RANGE_BYTES", range_bytes)
        rows = [(user, "i", float(rating)) for user, _, rating in records]
        check_interactions(scratch, config(newlines_in_values=True), rows, [])


def test_tokens_with_line_ends_and_quotes_that_stay_open(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(HEADER + b'1,"a\nb",1\n2,c,0\n3,"d\n4,e,1\n')
    check_interactions(path, config(newlines_in_values=True), [(2, "c", 0.0)], ["item: a line end", UNBALANCED_QUOTE])


@pytest.mark.parametrize(
    ("window", "users"),
    [
        ({}, [1, 2, 3]),
        ({"since": 86_400}, [2, 3]),
        ({"until": "1970-01-02"}, [1]),
        ({"since": "1970-01-02T00:00:00Z", "until": "1970-01-02T01:00:01+01:00"}, [2]),
        ({"since": 100, "until": 100}, []),
    ],
)
def test_window(tmp_path: Path, window: dict[str, object], users: list[int]) -> None:
    """Rows outside of the window are counted, even those whose label would be refused."""
    path = tmp_path / "log.csv"
    times = [0, 86_400, 86_401]
    path.write_text("user,item,rating,time\n" + "".join(f"{n},i,1,{time}\n" for n, time in enumerate(times, 1)) + "x\n")
    options = PipelineConfig.model_validate(
        {
            **config().model_dump(),
            "columns": {"user": "int64", "item": "string", "rating": "float32", "time": "int64"},
            "timestamp_column": "time",
            "window": window,
        }
    )
    (file,) = match_input([str(path)])
    ((_, parsed),) = (parse() for file_range in split_input((0, file), options) for parse in file_range.blocks(options))
    windowed, out_of_window = take_window(parsed, options)
    assert windowed.rows["user"].to_pylist() == users
    assert out_of_window == 3 - len(users)
    assert len(windowed.rejected) == 1
    assert [text for _, text in windowed.places()] == [f"{user},i,1,{times[user - 1]}".encode() for user in users]


def test_another_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    path.write_bytes(b"user\titem\trating\n1\ta,b\t1\n2\tc\n")
    check_interactions(path, config(delimiter="\t"), [(1, "a,b", 1.0)], ["wrong number of columns"])


def test_rejected_rows_keep_place_and_text(tmp_path: Path) -> None:
    """Rejected rows of the parser and of the label are in the order of the file."""
    path = tmp_path / "log.csv"
    text = BOM + HEADER + b"1,a,2\r\n\r\nbad\n3,c,1\n4,d,-1\n"
    path.write_bytes(text)
    with beam.Pipeline(FnApiRunner()) as pipeline:
        batches = pipeline | ReadInteractions(source(path), config())
        rejected = batches | beam.Map(
            lambda batch: sorted((row.offset, row.text) for rows in batch.rejected.values() for row in rows.rows)
        )
        assert_that(rejected, equal_to([[(text.index(line), line) for line in (b"1,a,2", b"bad", b"4,d,-1")]]))


def test_files_keep_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "RANGE_BYTES", 10)
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.csv").write_bytes(HEADER + f"1,{name},1\n".encode() * 5)
    with beam.Pipeline(FnApiRunner()) as pipeline:
        batches = pipeline | ReadInteractions(source(tmp_path / "*.csv"), config())
        places = batches | beam.FlatMap(lambda batch: [(batch.file, item) for item in batch.rows["item"].to_pylist()])
        assert_that(places, equal_to([(number, name) for number, name in enumerate("abc") for _ in range(5)]))
