"""Checks that systemd accepts the units of deploy/systemd/, and that they start the command."""

from __future__ import annotations

import configparser
import datetime
import shutil
import subprocess
from pathlib import Path

import pytest

from dotbias.cli.arguments import parse_arguments
from dotbias.cli.main import WRONG_USAGE

UNITS = Path(__file__).resolve().parents[2] / "deploy" / "systemd"


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name)
    return parser


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_units() -> None:
    for arguments in (["verify", *map(str, sorted(UNITS.iterdir()))], ["calendar", calendar()]):
        done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def calendar() -> str:
    return unit("dotbias-night.timer")["Timer"]["OnCalendar"]


def test_the_command_line_is_one_of_the_night(tmp_path: Path) -> None:
    """Runs the line in the shell that systemd starts, with a program that prints its arguments instead of Dotbias."""
    printer = tmp_path / "venv" / "bin" / "dotbias"
    printer.parent.mkdir(parents=True)
    printer.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    printer.chmod(0o755)
    line = unit("dotbias-night.service")["Service"]["ExecStart"]
    shell, script = line.split(" -c ")
    # systemd's own signs, written twice to mean themselves.
    script = script.strip("'").replace("%%", "%").replace("$$", "$")
    before = datetime.datetime.now(datetime.timezone.utc).date()
    done = subprocess.run([shell, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    arguments = parse_arguments(done.stdout.splitlines())
    after = datetime.datetime.now(datetime.timezone.utc).date()
    assert arguments.stage == "retrain"
    assert before.isoformat() <= arguments.own["date"] <= after.isoformat()
    assert (arguments.input, arguments.output_root, arguments.json) == (("logs/*",), "out", "summary.json")


def test_wrong_usage_is_not_tried_again() -> None:
    service = unit("dotbias-night.service")["Service"]
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", str(WRONG_USAGE))
