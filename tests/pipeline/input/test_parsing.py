"""Checks that every line is a row or a rejected row, whatever its neighbours are."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.input import parsing
from pipeline.input.columns import ARROW_TYPES, ColumnToRead, parse_iso
from pipeline.input.parsing import (
    _NUMBERS,
    BOM,
    CARRIAGE_RETURN,
    UNBALANCED_QUOTE,
    WRONG_COLUMNS,
    CsvFormat,
    parse_lines,
    split_lines,
)

# The rating is read before the item; `comment` is not read at all.
USER, RATING, ITEM = ColumnToRead("user", "int64"), ColumnToRead("rating", "float32"), ColumnToRead("item", "string")
FORM = CsvFormat(("user", "item", "comment", "rating"), (USER, RATING, ITEM))
GOOD = b"7,a,,4.5\n"


def parse(data: bytes, offset: int = 100, form: CsvFormat = FORM) -> tuple[list[tuple[object, ...]], list[str]]:
    parsed = parse_lines(data, offset, form)
    assert parsed.rows.schema == form.schema
    return [tuple(row.values()) for row in parsed.rows.to_pylist()], [rejected.reason for rejected in parsed.rejected]


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (b"1,a,b,2", (1, 2.0, "a")),
        (b"-9223372036854775808,a,b,-1e3", (-(2**63), -1000.0, "a")),
        # Spaces around numbers go, those around strings stay.
        (b" 1\t, a ,b, 2", (1, 2.0, " a ")),
        (b'"1","a,b","c","2"', (1, 2.0, "a,b")),
        (b'1,"say ""hi""",b,2', (1, 2.0, 'say "hi"')),
        # A quote within a field is a character like others.
        (b'1,5" disk,b,2', (1, 2.0, '5" disk')),
        ("1,naïve 🎬,b,2".encode(), (1, 2.0, "naïve 🎬")),
        (b"1,a,b,2\r", (1, 2.0, "a")),
        # A column that is not read may have any content.
        (b"1,a,\xff\0,2", (1, 2.0, "a")),
        (b"1,a,,2", (1, 2.0, "a")),
        (b"1,a,b,1e400", (1, float("inf"), "a")),
        (b"1,a,b,.5", (1, 0.5, "a")),
        (b"0x1F,a,b,2", (31, 2.0, "a")),
        # Longer than a block of Arrow's.
        (b"1,a," + b"b" * (3 << 20) + b",2", (1, 2.0, "a")),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_rows(line: bytes, row: tuple[object, ...]) -> None:
    assert parse(line + b"\n") == ([row], [])
    # The same, parsed line by line.
    assert parse(b"bad\n" + line) == ([row], [WRONG_COLUMNS])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1,a,b", WRONG_COLUMNS),
        (b"1,a,b,2,", WRONG_COLUMNS),
        (b" ", WRONG_COLUMNS),
        (b'1,"a,b,2', UNBALANCED_QUOTE),
        (b'1,"a"",b,2', UNBALANCED_QUOTE),
        (b'1,a,b,"2', UNBALANCED_QUOTE),
        (b"1,a,b\r,2", CARRIAGE_RETURN),
        (b"1,a,b,2\r\r", CARRIAGE_RETURN),
        (b",a,b,2", "user: empty"),
        (b'"",a,b,2', "user: empty"),
        (b"1,,b,2", "item: empty"),
        (b'1,"",b,2', "item: empty"),
        (b"1,a,b,", "rating: empty"),
        (b"1.0,a,b,2", "user: not an int64"),
        (b"+1,a,b,2", "user: not an int64"),
        (b"1_0,a,b,2", "user: not an int64"),
        (b"9223372036854775808,a,b,2", "user: an integer beyond 64 bits"),
        (b"2026-11-01,a,b,2", "user: a date as text, not an int64"),
        (b"\xc2\xa01,a,b,2", "user: not an int64"),
        (b"1\0,a,b,2", "user: not an int64"),
        (b"\xff,a,b,2", "user: not UTF-8"),
        (b"1,\xff,b,2", "item: not UTF-8"),
        (b"1,\xff", WRONG_COLUMNS),
        (b"1,a\0,b,2", "item: a NUL byte"),
        (b"1,a,b,four", "rating: not a number"),
        (b"1,a,b,4,5", WRONG_COLUMNS),
        (b"1,a,b,1e", "rating: not a number"),
        # A byte-order mark has its place at the beginning of a file.
        (BOM + b"1,a,b,2", "user: not an int64"),
        # Several things are wrong: the reason is the first of the wanted columns.
        (b"x,\xff,b,y", "user: not an int64"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_rejected_lines(line: bytes, reason: str) -> None:
    parsed = parse_lines(GOOD + line + b"\n" + GOOD, 100, FORM)
    assert parsed.rows.num_rows == 2
    assert parsed.rejected == [(100 + len(GOOD), reason, line.removesuffix(b"\r"))]


@pytest.mark.parametrize("data", [b"", b"\n", b"\r\n\n", BOM, BOM + b"\n"])
def test_nothing_to_parse(data: bytes) -> None:
    parsed = parse_lines(data, 0, FORM)
    assert (parsed.rows.num_rows, parsed.rejected, parsed.places()) == (0, [], [])


def test_a_byte_order_mark_goes_at_the_beginning_of_the_file_only() -> None:
    assert parse(BOM + GOOD, offset=0) == parse(GOOD)
    assert parse_lines(BOM + b"bad\n", 0, FORM).rejected == [(3, WRONG_COLUMNS, b"bad")]
    strings = CsvFormat(("item",), (ITEM,))
    assert parse(BOM + b"a\n", offset=100, form=strings) == ([("\ufeffa",)], [])


def test_many_bad_lines_of_all_kinds_among_many_good_ones() -> None:
    """Parses several of Arrow's blocks, so that the numbers of skipped rows must be those of lines."""
    lines = [GOOD.strip() + b"%d" % number for number in range(300_000)]
    bad = {10: b"bad", 99_999: b'1,"a,b,2', 100_000: b'1,a,b,"2', 200_000: b"x,a,b,2", 299_999: b"1,a,b,2,3"}
    for index, line in bad.items():
        lines[index] = line
    parsed = parse_lines(b"\n".join(lines), 0, FORM)
    assert [rejected.text for rejected in parsed.rejected] == list(bad.values())
    assert parsed.rows.num_rows == len(lines) - len(bad)


def test_columns_of_the_same_name_that_are_not_read() -> None:
    form = CsvFormat(("user", "", "item", ""), (USER, ITEM))
    assert parse(b'1,x,a,"y\n2,x,b,y\n', form=form) == ([(2, "b")], [UNBALANCED_QUOTE])


def test_another_delimiter() -> None:
    form = CsvFormat(("user", "item"), (USER, ITEM), delimiter="\t")
    assert parse(b'1\ta,b\nbad\n2\t"c\td"\n', form=form) == ([(1, "a,b"), (2, "c\td")], [WRONG_COLUMNS])


OPTIONAL = CsvFormat(
    ("user", "country", "age", "time"),
    (
        USER,
        ColumnToRead("country", "string", may_be_missing=True),
        ColumnToRead("age", "int64", may_be_missing=True),
        ColumnToRead("time", "string", is_iso=True),
    ),
)
NOON = 1_793_534_400_000_000


@pytest.mark.parametrize("bad", [b"", b"bad\n"], ids=["at once", "line by line"])
def test_a_missing_value_is_a_token_where_it_may_be(bad: bytes) -> None:
    data = b'1,,,2026-11-01T12:00:00Z\n2,"",30,2026-11-01 12:00\n' + bad
    rows, reasons = parse(data, form=OPTIONAL)
    assert rows == [(1, "(missing)", -1, NOON), (2, "(missing)", 30, NOON)]
    assert reasons == [WRONG_COLUMNS] * bool(bad)
    # Spaces are no missing value, and the other columns may not be empty.
    for line, reason in (
        (b"1,x, ,2026-11-01", "age: not an int64"),
        (b",x,1,2026-11-01", "user: empty"),
        (b"1,x,1,", "time: empty"),
        (b"1,x,1,yesterday", "time: not a date or time of ISO 8601"),
        (b"1,x,1,1793534400", "time: not a date or time of ISO 8601"),
        (b"1,x,1,2026-02-30", "time: not a date or time of ISO 8601"),
    ):
        assert parse(line, form=OPTIONAL) == ([], [reason])


ISO = [
    ("2026-11-01T12:00:00Z", 0),
    ("2026-11-01 12:00:00", 0),
    ("2026-11-01T12:00", 0),
    ("2026-11-01", -12 * 3600),
    ("2026-11-01T14:00:00+02:00", 0),
    ("2026-11-01 07:30:00-0430", 0),
    ("2026-11-01T13:00:00+01", 0),
    ("2026-11-01T12:00:00.5Z", 0.5),
    ("2026-11-01 12:00:00.123456", 0.123456),
    # Microseconds are kept.
    ("2026-11-01T12:00:00.123456789Z", 0.123456),
    ("2026-11-01 12:00:00,25", 0.25),
    # As BigQuery and PostgreSQL write it.
    ("2026-11-01 12:00:00 UTC", 0),
    ("2026-11-01 12:00:00.25+00", 0.25),
    ("2026-11-01t12:00:00z", 0),
    (" 2026-11-01 12:00:00 +00:00 ", 0),
    ("1969-12-31T23:59:59Z", -1_793_534_401),
]


@pytest.mark.parametrize(("text", "seconds"), ISO)
def test_iso_timestamps(text: str, seconds: float) -> None:
    assert parse_iso(pa.array([text])).to_pylist() == [NOON + round(seconds * 10**6)]


@given(st.lists(st.sampled_from([*(text for text, _ in ISO), "", "x", "2026-13-01", "2026-11-01T25:00Z", None])))
def test_what_a_timestamp_means_does_not_depend_on_its_neighbours(texts: list[str | None]) -> None:
    alone = [parse_iso(pa.array([text], pa.string()))[0].as_py() for text in texts]
    assert parse_iso(pa.array(texts, pa.string())).to_pylist() == alone


# Fields that are good, bad, or accepted by only one of Arrow's two conversions.
_INTEGERS = ["0", "-5", "12", "0x1F", "0X1f", "0x", "-0x1", "+3", " 3", "3\t", "1_0", "007", "-", "9" * 19, "1e3", "٣"]
_FLOATS = ["0.5", "4", "5.", ".5", ".", "1e400", "-1e-400", "1e5", "1E+5", "1e", "+3", "++3", "inf", "-Infinity", "NaN"]
_FLOATS += ["-nan", "nan(1)", "nan()", "infinit", "0x1p3", " 2 ", "1,5", "1_0.0", "1f", "1d", "- 1", "1 e5", "1e5.0"]
_STRINGS = ["a", "a b", "ü", "\ufeff", '"', '""', '"a,b"', '"a""b"', 'a"b', '"a"b', '"', "\r", "\0", "\\", "'", " "]
_fields = st.one_of(
    st.sampled_from([*_INTEGERS, *_FLOATS, *_STRINGS, ""]).map(str.encode),
    st.sampled_from([b"\xff", b"\xc3", BOM, b"\xed\xa0\x80"]),
)
_bad_lines = st.lists(_fields, min_size=1, max_size=6).map(b",".join)
_rows = st.tuples(
    st.sampled_from(_INTEGERS), st.sampled_from(_STRINGS), st.sampled_from(_STRINGS), st.sampled_from(_FLOATS)
)
_lines = st.one_of(
    st.just(GOOD.strip()), _rows.map(lambda row: ",".join(row).encode()), _bad_lines, st.binary(max_size=8)
).map(lambda line: line.replace(b"\n", b""))


@settings(max_examples=100)
@given(
    lines=st.lists(st.tuples(_lines, st.sampled_from([b"\n", b"\r\n"])), min_size=1, max_size=8),
    ended=st.booleans(),
    careful_bytes=st.sampled_from([1, 40, 1 << 16]),
)
@example(lines=[(b'1,a,b,"2', b"\n"), (GOOD.strip(), b"\n")], ended=True, careful_bytes=1)
@example(lines=[(b"1,a,b,nan(1)", b"\n"), (b"bad", b"\n")], ended=True, careful_bytes=1 << 16)
def test_the_fate_of_a_line_does_not_depend_on_its_neighbours(
    lines: list[tuple[bytes, bytes]], ended: bool, careful_bytes: int
) -> None:
    data = b"".join(line + end for line, end in lines)
    data = data if ended else data.removesuffix(b"\n")
    offset = 1000
    with pytest.MonkeyPatch.context() as patch:
        # Blocks of fewer bytes are parsed line by line, larger ones are cut again.
        patch.setattr(parsing, "CAREFUL_BYTES", careful_bytes)
        block = parse_lines(data, offset, FORM)

    alone = [parse_lines(text + b"\r\n", at, FORM) for at, text in split_lines(data, offset)]
    rows = pa.Table.from_batches([each.rows for each in alone], FORM.schema).combine_chunks()
    # As text, since NaN is not equal to itself.
    assert str(block.rows.to_pylist()) == str(rows.to_pylist())
    assert block.rejected == [rejected for each in alone for rejected in each.rejected]

    assert block.places() == [place for each in alone for place in each.places()]
    lines = sum(line.removesuffix(b"\r") != b"" for line in data.split(b"\n"))
    assert len(block.places()) == len(block.rows) == lines - len(block.rejected)
    for at, _, text in block.rejected:
        assert data[at - offset :].startswith(text)


@pytest.mark.parametrize("dtype", ["int64", "float32"])
@settings(max_examples=250)
@given(
    number=st.one_of(
        st.sampled_from([*_INTEGERS, *_FLOATS]),
        st.text("0123456789+-.eExXaAfFnNiItTyY_() \t", min_size=1, max_size=8),
        st.floats().map(repr),
        st.integers().map(str),
    )
)
def test_the_prefilter_for_numbers_refuses_none_that_arrow_accepts(dtype: str, number: str) -> None:
    options = pyarrow.csv.ConvertOptions(column_types={"x": ARROW_TYPES[dtype]}, null_values=[])  # type: ignore[index]
    try:
        pyarrow.csv.read_csv(
            io.BytesIO(f'"{number}"\n'.encode()), pyarrow.csv.ReadOptions(column_names=["x"]), convert_options=options
        )
    except pa.ArrowInvalid:
        return
    trimmed = pc.utf8_trim(pa.array([number]), " \t")
    assert pc.match_substring_regex(trimmed, _NUMBERS[dtype])[0].as_py()  # type: ignore[index]
    # And the cast of the line by line way finds the same number.
    trimmed.cast(ARROW_TYPES[dtype])  # type: ignore[index]
