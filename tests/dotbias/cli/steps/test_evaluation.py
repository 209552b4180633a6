"""Checks whether a run can be evaluated at its end."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dotbias.cli.console.progress import ProgressDisplay
from dotbias.cli.console.summary import RunReport
from dotbias.cli.steps import evaluation, packages
from dotbias.cli.steps.evaluation import evaluate_at_end, report_on_run, share_that_fits, why_not_evaluated
from pipeline.manifest import Split
from tests.dotbias.evaluation.conftest import make_run
from tests.dotbias.evaluation.contents import manifest

GIB = 1 << 30


def test_a_run_that_can_be_evaluated() -> None:
    assert why_not_evaluated(manifest()) == ""
    assert share_that_fits(manifest(), GIB) == share_that_fits(manifest(), None) == 1


def test_without_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Any:
        return None if name == "plotly" else find_spec(name)

    monkeypatch.setattr(packages, "find_spec", find)
    assert why_not_evaluated(manifest()) == (
        "an evaluation needs the package plotly: install Dotbias with `evaluation`, as in pip install '.[evaluation]'"
    )


def test_without_eval_rows() -> None:
    nothing = Split(rows=0, positive_rows=0, label_mean=None, shards=[])
    without = manifest().model_copy(update={"splits": {**manifest().splits, "eval": nothing}})
    assert "no eval rows" in why_not_evaluated(without)


def test_as_many_users_as_fit_into_memory() -> None:
    many = manifest().splits["train"].model_copy(update={"rows": 200_000_000})
    large = manifest().model_copy(update={"splits": {**manifest().splits, "train": many}})
    # 28 GiB.
    shares = {gib: share_that_fits(large, gib * GIB) for gib in (32, 27, 14, 8, 7, 1)}
    assert shares == {32: 1, 27: 1 / 2, 14: 1 / 2, 8: 1 / 4, 7: 1 / 4, 1: 1 / 32}


@pytest.mark.parametrize(
    ("available", "said"),
    [
        # 800 rows at 150 bytes: a half, and too few for any user.
        (100_000, "on a random sample: "),
        (1, "none: more users do not fit memory, and a sample of 0.00% of the users has no rows"),
    ],
)
def test_a_run_whose_rows_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available: int, said: str
) -> None:
    data = make_run(tmp_path)
    monkeypatch.setattr(evaluation, "available_bytes", lambda: available)

    def at_end() -> RunReport:
        report = RunReport(str(tmp_path / "dataset"), str(tmp_path / "model"), manifest=data.manifest)
        with ProgressDisplay() as progress:
            answer = evaluate_at_end(report, str(tmp_path), progress, verbose=False)
        report.page = report_on_run(report, str(tmp_path), answer, {}, verbose=False)
        return report

    report = at_end()
    assert any(line.startswith(said) for line in report.verdict_lines), report.verdict_lines
    assert report.page is not None
    if available > 1:
        assert "a random sample: " in Path(report.page).read_text()
        # A little less memory changes nothing; enough for all rows does.
        monkeypatch.setattr(evaluation, "available_bytes", lambda: available // 2)
        assert at_end().already_done == ["evaluate"]
        monkeypatch.setattr(evaluation, "available_bytes", lambda: GIB)
        whole = at_end()
        assert whole.already_done == [] and not any(line.startswith(said) for line in whole.verdict_lines)
