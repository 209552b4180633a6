"""Checks what follows from the outcome of a stage: the text, the JSON, and the exit code by the verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dotbias.cli import command
from dotbias.cli.arguments import parse_arguments
from dotbias.cli.failures import UsageError
from dotbias.cli.flags import Flag
from dotbias.cli.registry import STAGE_NAMES, all_stages, find_stage
from dotbias.cli.stage import Outcome, Stage
from dotbias.evaluation.results import Verdict, VerdictKind
from pipeline.manifest import DotbiasError


def end_with(monkeypatch: pytest.MonkeyPatch, outcome: Outcome) -> None:
    stage = find_stage("evaluate")
    ended = Stage(stage.name, stage.help, stage.flags, lambda arguments: outcome)
    monkeypatch.setattr(command, "find_stage", lambda name: ended)


def judged(kind: VerdictKind) -> Outcome:
    return Outcome(
        "text\n", {"verdict": kind}, Verdict(kind=kind, headline="A headline", reasons=["One reason.", "Another."])
    )


@pytest.mark.parametrize(
    ("fail_on", "kind", "fails"),
    [
        ("stop", "go", False),
        ("stop", "look", False),
        ("stop", "stop", True),
        # What was not measured is not known to be good.
        ("stop", "none", True),
        ("look", "go", False),
        ("look", "look", True),
        ("look", "stop", True),
        ("look", "none", True),
    ],
)
def test_fail_on(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    fail_on: str,
    kind: VerdictKind,
    fails: bool,
) -> None:
    end_with(monkeypatch, judged(kind))
    arguments = parse_arguments(["evaluate", "--fail_on", fail_on, "--json", str(tmp_path / "a.json")])
    if fails:
        with pytest.raises(DotbiasError, match=rf"--fail_on {fail_on}: A headline. One reason. \(and 1 more\)"):
            command.run_command(arguments)
    else:
        command.run_command(arguments)
    # Everything was written before.
    assert capsys.readouterr().out == "text\n"
    assert json.loads((tmp_path / "a.json").read_text()) == {"stage": "evaluate", "verdict": kind}


def test_without_the_flag_no_verdict_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    end_with(monkeypatch, judged("stop"))
    command.run_command(parse_arguments(["evaluate"]))


def test_json_instead_of_the_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    end_with(monkeypatch, judged("go"))
    command.run_command(parse_arguments(["evaluate", "--json"]))
    assert json.loads(capsys.readouterr().out) == {"stage": "evaluate", "verdict": "go"}


def test_a_directory_for_the_json_is_looked_for_before_any_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    end_with(monkeypatch, judged("go"))
    with pytest.raises(UsageError, match="--json: there is no directory"):
        command.run_command(parse_arguments(["evaluate", "--json", str(tmp_path / "missing" / "a.json")]))
    assert capsys.readouterr().out == ""


def test_a_stage_may_have_a_flag_of_its_own_under_a_shared_name(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = find_stage("evaluate")
    own = Stage(stage.name, stage.help, (Flag("--json", "whether", {"action": "store_true"}),), stage.run)
    monkeypatch.setattr("dotbias.cli.arguments.find_stage", lambda name: own)
    parsed = parse_arguments(["evaluate", "--json"])
    assert parsed.json is None and parsed.own == {"json": True}


def test_stages_are_called_what_their_modules_are() -> None:
    assert [stage.name for stage in all_stages()] == list(STAGE_NAMES)


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_the_help_of_a_stage_shows_its_flags_alone(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments([name, "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    own = {flag.name for flag in find_stage(name).flags}
    others = {flag.name for stage in all_stages() for flag in stage.flags} - own
    words = set(shown.replace("[", " ").split())
    assert own <= words and not others & words
