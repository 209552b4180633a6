"""Runs the stage that the command line names, and tells a person or a program how it ended."""

from __future__ import annotations

import json
from pathlib import Path

from dotbias.cli.console.json_files import write_json
from dotbias.cli.failures import UsageError
from dotbias.cli.registry import find_stage
from dotbias.cli.stage import Arguments, Outcome
from pipeline.manifest import DotbiasError
from pipeline.storage.paths import is_remote

# A model that was not evaluated fails at both levels.
_FAILS = {"stop": ("stop", "none"), "look": ("look", "stop", "none")}


def run_command(arguments: Arguments) -> None:
    """Runs the stage; prints its summary or writes it as JSON.

    Raises:
        UsageError: flags, configuration or input are wrong; nothing was done.
        DotbiasError: the stage failed for a reason that its message gives, or `--fail_on` refuses the model.
    """
    file = arguments.json
    if file not in (None, "-") and not is_remote(file) and not Path(file).absolute().parent.is_dir():
        raise UsageError(f"--json: there is no directory {Path(file).parent} to write {Path(file).name} to")
    outcome = find_stage(arguments.stage).run(arguments)
    facts = {"stage": arguments.stage, **outcome.facts}
    print(json.dumps(facts, indent=2) + "\n" if file == "-" else outcome.text, end="")
    if file not in (None, "-"):
        write_json(file, facts)
    _check_verdict(outcome, arguments.own.get("fail_on"))


def _check_verdict(outcome: Outcome, fail_on: str | None) -> None:
    verdict = outcome.verdict
    if fail_on is not None and verdict is not None and verdict.kind in _FAILS[fail_on]:
        reasons = " ".join(verdict.reasons[:1])
        more = f" (and {len(verdict.reasons) - 1} more)" if len(verdict.reasons) > 1 else ""
        raise DotbiasError(f"--fail_on {fail_on}: {verdict.headline}. {reasons}{more}")
