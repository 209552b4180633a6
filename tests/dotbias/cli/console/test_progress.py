"""Tests the bars on a terminal and the lines in a log."""

from __future__ import annotations

import io

from dotbias.cli.console.progress import SECONDS_BETWEEN_LINES, ProgressDisplay, progress_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Replaces the clock; its time passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lines_are_plain_and_rare() -> None:
    stream, clock = io.StringIO(), Clock()
    display = ProgressDisplay(stream, clock)
    # A report each tenth of a second, for a minute.
    for report in range(601):
        display("read", report * 100, 60_000, {"loss": 0.5})
        clock.now += 0.1
    display.close()
    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue()
    assert lines[0] == "INFO read ..."
    # The start, the end, and one each ten seconds.
    assert 60 / SECONDS_BETWEEN_LINES <= len(lines) - 1 <= 60 / SECONDS_BETWEEN_LINES + 1
    assert lines[-1] == "INFO read: 60,000 rows, 998 rows/s, loss 0.5, 60.1 s"


def test_a_new_stage_ends_the_one_before_it() -> None:
    stream, clock = io.StringIO(), Clock()
    display = ProgressDisplay(stream, clock)
    display("read", 0, None, {})
    clock.now += 2
    display("read", 10, None, {})
    display("train", 0, 10, {})
    clock.now += 3
    display("train", 10, 10, {})
    display.close()
    display.close()
    assert stream.getvalue().splitlines() == [
        "INFO read ...",
        "INFO read: 10 rows, 5 rows/s, 2.0 s",
        "INFO train ...",
        "INFO train: 10 rows, 3 rows/s, 3.0 s",
    ]
    assert display.seconds == {"read": 2.0, "train": 3.0}


def test_a_bar_on_a_terminal() -> None:
    stream = Terminal()
    display = ProgressDisplay(stream)
    display("train", 0, 2_000, {})
    display("train", 1_000, 2_000, {"loss": 0.51234})
    display("train", 2_000, 2_000, {"loss": 0.5})
    display.close()
    shown = stream.getvalue()
    assert "\r" in shown
    assert "train" in shown
    assert "100%" in shown
    assert "loss=0.5" in shown
    assert "INFO" not in shown


def test_a_line_says_how_long_it_will_take() -> None:
    line = progress_line("train", 0, 250_000, 1_000_000, 5.0, {"loss": 0.123456, "auc": 0.75})
    assert line == "INFO train: 250,000 of 1,000,000 rows (25%), 50,000 rows/s, eta 15 s, loss 0.1235, auc 0.75"


def test_a_line_without_an_end_or_a_beginning() -> None:
    assert progress_line("read", 0, 0, None, 0.0, {}) == "INFO read: 0 rows"
    assert progress_line("read", 0, 0, 0, 1.0, {}) == "INFO read: 0 of 0 rows (0%)"
    assert progress_line("read", 0, 5, None, 2.0, {}) == "INFO read: 5 rows, 2 rows/s"


def test_rows_of_an_earlier_start_do_not_count_as_pace() -> None:
    assert progress_line("train", 100, 150, 200, 5.0, {}) == "INFO train: 150 of 200 rows (75%), 10 rows/s, eta 5 s"
