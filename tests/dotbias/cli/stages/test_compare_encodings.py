"""Tests the stage `compare_encodings`: refusals, files, and continuation after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dotbias.cli.arguments import parse_arguments
from dotbias.cli.configuration.load import load_configuration
from dotbias.cli.console.progress import ProgressDisplay
from dotbias.cli.console.summary import ComparisonResult, RunReport, summary
from dotbias.cli.failures import UsageError
from dotbias.cli.stages.compare_encodings import compare_run, recommended_configuration
from dotbias.cli.steps import packages
from dotbias.evaluation.encodings.comparison import Comparison
from dotbias.evaluation.encodings.variants import CompareConfig, make_variants

ROOT = Path(__file__).resolve().parents[4]
COMPARED = "runs/sample/compare_encodings"
SMALL = (
    "sample.rows=20000",
    "sample.test_rows=0",
    "sample.users=300",
    "sample.items=200",
    "trainer.epochs=2",
    "trainer.batch_size=256",
    "compare.frequency_thresholds=[]",
    "compare.bins_per_id=[0.5]",
)


def arguments(directory: Path) -> list[str]:
    flags = ["--stage", "compare_encodings", "--output_root", str(directory)]
    return [*flags, *(f"--set={override}" for override in SMALL)]


def refused(*flags: str) -> str:
    given = parse_arguments(["--stage", "compare_encodings", *flags])
    configuration = load_configuration(given.config)
    with pytest.raises(UsageError) as error:
        compare_run(given, configuration, configuration.pipeline, [], ProgressDisplay())
    return str(error.value)


def test_variants_are_kept_on_a_local_disk() -> None:
    assert "gs://bucket/out" in refused("--output_root", "gs://bucket/out")


def test_without_its_packages_it_says_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_plotly(name: str, *more: Any) -> Any:
        return None if name == "plotly" else find_spec(name, *more)

    monkeypatch.setattr(packages, "find_spec", without_plotly)
    assert "pip install '.[evaluation]'" in refused()


def test_features_to_compare_have_to_be_there() -> None:
    with pytest.raises(UsageError, match=r"compare.features.*'userId'.*'movieId'.*'shop'"):
        load_configuration(str(ROOT / "configs/sample.yaml"), ("compare.features=[shop]",))


@pytest.mark.parametrize("name", ["movielens.yaml", "hashing.yaml"])
def test_the_recommended_configuration_has_the_encoding_of_the_variant(name: str, tmp_path: Path) -> None:
    given = load_configuration(str(ROOT / "configs" / name), ("trainer.l2=0.2",), ("ratings.csv",))
    ids = {"userId": 600, "movieId": 9000}
    for variant in make_variants(given.pipeline, given.trainer, CompareConfig(), ids):
        (tmp_path / "recommended.yaml").write_text(recommended_configuration(given, variant))
        written = load_configuration(str(tmp_path / "recommended.yaml"))
        assert written.pipeline == variant.pipeline
        assert written.trainer == given.trainer.model_copy(update={"hashing": variant.trainer.hashing})


def test_the_summary_ends_with_what_to_take() -> None:
    result = ComparisonResult("| a table |\n", "hashing, 1 bin per id", ["It is small."], "out/x", "out/x/new.yaml")
    text = summary(RunReport(dataset="", model="", comparison=result))
    assert text.startswith("| a table |\n\nTake        hashing, 1 bin per id\n            It is small.\n")
    for path in ("out/x/new.yaml", "out/x/comparison.csv", "out/x/report.html", "out/x/variants/"):
        assert path in text


def files(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(directory.rglob("*")) if path.is_file()}


def scores(root: Path) -> Any:
    comparison = Comparison.model_validate_json((root / COMPARED / "comparison.json").read_text())
    return comparison.scores, comparison.slices, comparison.best


def command(directory: Path, *flags: str) -> list[str]:
    return [sys.executable, str(ROOT / "run_pipeline.py"), *arguments(directory), *flags]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Path, int], str]:
    """Starts a comparison, kills it when its first variant is finished, and starts it again.

    Returns the directory, its files when the process was dead, and the output of the second start.
    """
    root = tmp_path_factory.mktemp("killed")
    directory = root / COMPARED
    with subprocess.Popen(command(root), stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while not (directory / "variants/configured/variant.json").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    before = files(directory)
    finished = subprocess.run(command(root), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return root, before, finished.stdout


@pytest.mark.slow
def test_a_killed_comparison_goes_on_and_keeps_what_is_finished(
    killed: tuple[Path, dict[Path, int], str], tmp_path: Path
) -> None:
    root, before, printed = killed
    directory = root / COMPARED
    kept = {path: time for path, time in before.items() if {"tokens", "configured"} & set(path.parts)}
    assert kept and kept.items() <= files(directory).items()
    assert not list(directory.rglob("checkpoints"))
    assert "hashing, 0.5 bins per id" in printed and "Take  " in printed

    peaceful = subprocess.run(command(tmp_path), capture_output=True, text=True)
    assert peaceful.returncode == 0, peaceful.stderr
    assert scores(root) == scores(tmp_path)


@pytest.mark.slow
def test_a_finished_comparison_is_not_made_again(killed: tuple[Path, dict[Path, int], str]) -> None:
    root, _, printed = killed
    before = files(root / COMPARED / "variants")
    again = subprocess.run(command(root), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert again.stdout.partition("Seconds")[0] == printed.partition("Seconds")[0]
    assert files(root / COMPARED / "variants") == before

    # Another configuration is refused, and finished variants stay.
    other = subprocess.run(command(root, "--set=trainer.l2=0.5"), capture_output=True, text=True)
    assert other.returncode == 1
    assert "trainer.l2" in other.stderr and "--run_id" in other.stderr
    assert files(root / COMPARED / "variants") == before

    # A further variant costs only its own training.
    more = subprocess.run(command(root, "--set=compare.bins_per_id=[0.5, 1]"), capture_output=True, text=True)
    assert more.returncode == 0, more.stderr
    assert "hashing, 1 bin per id" in more.stdout
    assert before.items() <= files(root / COMPARED / "variants").items()
