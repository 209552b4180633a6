"""Finds the `DotbiasError` of a worker in the errors that Beam makes of it; other errors keep their traceback."""

from __future__ import annotations

import pytest

from dotbias.cli.failures import UsageError, explanation
from dotbias.cli.main import main
from pipeline.manifest import DotbiasError, ManifestError
from pipeline.storage.paths import InputError

# The error text of a worker in another process, shortened.
_WORKER = """\
Traceback (most recent call last):
  File "sources.py", line 9, in process
    {}[3]
KeyError: 3

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "sdk_worker.py", line 310, in _execute
    response = task()
"""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DotbiasError("log.csv is empty"), "log.csv is empty"),
        (ManifestError("no manifest"), "no manifest"),
        (DotbiasError("two\n lines"), "two lines"),
        # In process: the step's name is appended.
        (DotbiasError("log.csv is empty [while running 'ReadInteractions/Read']"), "log.csv is empty"),
        # From another process.
        (RuntimeError(f"{_WORKER}pipeline.manifest.DotbiasError: log.csv is empty\n"), "log.csv is empty"),
        (
            RuntimeError(f"{_WORKER}pipeline.storage.paths.InputError: two\nlines [while running 'Read']\n\n"),
            "two lines",
        ),
        # From Dataflow, whose errors surround the worker's traceback with text.
        (
            RuntimeError(f"Dataflow pipeline failed. Error:\n{_WORKER}pipeline.manifest.DotbiasError: a: b\n\nSee"),
            "a: b",
        ),
        # Something else failed, maybe while a DotbiasError was handled.
        (ValueError("bad"), None),
        (RuntimeError(f"{_WORKER}ValueError: bad [while running 'Read']\n"), None),
        (RuntimeError(f"pipeline.manifest.DotbiasError: a\n\n{_WORKER}ValueError: bad\n"), None),
        (RuntimeError("a text that mentions pipeline.manifest.DotbiasError: x"), None),
    ],
)
def test_explanation(error: Exception, message: str | None) -> None:
    assert explanation(error) == message


def test_explanation_of_a_cause() -> None:
    try:
        try:
            raise InputError("log.csv vanished")
        except InputError as error:
            raise RuntimeError("pipeline failed") from error
    except RuntimeError as error:
        assert explanation(error) == "log.csv vanished"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DotbiasError("the disk\nis full"), 1, "run_pipeline.py: error: the disk is full\n"),
        # In the middle of a job, as Beam hands it on.
        (InputError("a.gz is cut off [while running 'Read']"), 1, "run_pipeline.py: error: a.gz is cut off\n"),
        (UsageError("no such flag"), 2, "run_pipeline.py: error: no such flag\n"),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int, line: str
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("dotbias.cli.command.run_command", fail)
    assert main([]) == code
    assert capsys.readouterr().err == line


def test_an_unexpected_failure_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("dotbias.cli.command.run_command", fail)
    with pytest.raises(ZeroDivisionError, match="a defect"):
        main([])
