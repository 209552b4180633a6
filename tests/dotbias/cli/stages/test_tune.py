"""Tests the configuration file that a search writes, and the summary of a search."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dotbias.cli.arguments import parse_arguments
from dotbias.cli.configuration.load import load_configuration
from dotbias.cli.console.progress import ProgressDisplay
from dotbias.cli.console.summary import RunReport, TuningResult, summary
from dotbias.cli.failures import UsageError
from dotbias.cli.stages.tune import tune_run, tuned_configuration
from dotbias.cli.steps import packages

ROOT = Path(__file__).resolve().parents[4]
VALUES = {"l2": 0.31, "bias_l2_factor": 0.8, "optimizer.learning_rate": 0.0042}


@pytest.mark.parametrize("name", ["sample.yaml", "movielens.yaml", "hashing.yaml"])
def test_the_file_differs_by_what_was_found(name: str, tmp_path: Path) -> None:
    given = load_configuration(str(ROOT / "configs" / name), ("trainer.seed=7",), ("ratings.csv",))
    (tmp_path / "tuned.yaml").write_text(tuned_configuration(given, VALUES))
    tuned = load_configuration(str(tmp_path / "tuned.yaml"))
    # The configuration names the log of the run, so that its dataset can be used.
    assert tuned.pipeline == given.pipeline and tuned.sample == given.sample
    trainer = tuned.trainer
    assert (trainer.l2, trainer.bias_l2_factor, trainer.optimizer.learning_rate) == (0.31, 0.8, 0.0042)
    back = {key: getattr(given.trainer, key) for key in ("l2", "bias_l2_factor", "optimizer")}
    assert trainer.model_copy(update=back) == given.trainer


def test_the_summary_says_what_was_found_and_how_to_train_with_it() -> None:
    result = TuningResult("out/runs/a/tune/tuned.yaml", "out", "a", VALUES, (0.00812, 0.0021), 12, 3, 9.34)
    text = summary(RunReport(dataset="out/runs/a/dataset", model="out/runs/a/model", tuning=result))
    for line in (
        "12 trials, 3 given up; they and the choice cost as much as 9.3 trainings",
        "the best one gains +0.0081 on other rows, with a standard error of 0.0021",
        "l2 0.31, bias_l2_factor 0.8, optimizer.learning_rate 0.0042",
        "out/runs/a/tune/trials.csv",
        "out/runs/a/tune/report.html",
        "--config out/runs/a/tune/tuned.yaml --stage train --output_root out --run_id a",
    ):
        assert line in text


def test_without_its_packages_it_says_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_optuna(name: str, *more: Any) -> Any:
        return None if name == "optuna" else find_spec(name, *more)

    monkeypatch.setattr(packages, "find_spec", without_optuna)
    arguments = parse_arguments(["--stage", "tune"])
    with pytest.raises(UsageError, match=r"pip install '\.\[tune\]'"):
        tune_run(arguments, load_configuration(arguments.config), "out/runs/sample/dataset", ProgressDisplay())


def test_the_journal_is_kept_on_a_local_disk() -> None:
    arguments = parse_arguments(["--stage", "tune", "--output_root", "gs://bucket/out"])
    with pytest.raises(UsageError, match=r"local disk.*gs://bucket/out"):
        tune_run(arguments, load_configuration(arguments.config), "gs://bucket/out/runs/x/dataset", ProgressDisplay())
