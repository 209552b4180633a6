"""Checks whether a run can be evaluated at its end."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from dotbias.cli.steps import packages
from dotbias.cli.steps.evaluation import why_not_evaluated
from pipeline.manifest import Split
from tests.dotbias.evaluation.contents import manifest

GIB = 1 << 30


def test_a_run_that_can_be_evaluated() -> None:
    assert why_not_evaluated(manifest(), GIB) == why_not_evaluated(manifest(), None) == ""


def test_without_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Any:
        return None if name == "plotly" else find_spec(name)

    monkeypatch.setattr(packages, "find_spec", find)
    assert why_not_evaluated(manifest(), None) == (
        "an evaluation needs the package plotly: install Dotbias with `evaluation`, as in pip install '.[evaluation]'"
    )


def test_without_eval_rows() -> None:
    nothing = Split(rows=0, positive_rows=0, label_mean=None, shards=[])
    without = manifest().model_copy(update={"splits": {**manifest().splits, "eval": nothing}})
    assert "no eval rows" in why_not_evaluated(without, None)


def test_rows_that_do_not_fit_into_memory() -> None:
    many = manifest().splits["train"].model_copy(update={"rows": 200_000_000})
    large = manifest().model_copy(update={"splits": {**manifest().splits, "train": many}})
    assert "28 GiB of 8 available" in why_not_evaluated(large, 8 * GIB)
    assert why_not_evaluated(large, 32 * GIB) == ""
