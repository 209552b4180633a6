"""Runs the stages by the real command, on a small sample."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.opened_files import opened_files

ROOT = Path(__file__).resolve().parents[4]

SMALL = tuple(
    f"--set={override}"
    for override in (
        "sample.rows=30000",
        "sample.test_rows=5000",
        "sample.users=100",
        "sample.items=50",
        "trainer.epochs=3",
        "trainer.batch_size=256",
    )
)


def run(directory: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Runs the command outside of the repository, without the log settings of the tests."""
    command = [sys.executable, str(ROOT / "run_pipeline.py"), *flags]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    directory = tmp_path_factory.mktemp("finished")
    return directory, run(directory, *SMALL)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_the_sample_from_start_to_end(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    directory, done = finished
    assert done.returncode == 0, done.stderr
    manifest = json.loads((directory / "out/runs/sample/dataset/manifest.json").read_text())
    metrics = json.loads((directory / "out/runs/sample/model/metrics.json").read_text())
    assert manifest["counts"]["read"] == 30_000
    assert f"30,000 read = {manifest['counts']['train']:,} train" in done.stdout
    assert f"auc {metrics['eval']['auc']:.4f}" in done.stdout
    # Progress is in plain lines, without logs of the libraries.
    assert all(line.startswith("INFO ") for line in done.stderr.splitlines()), done.stderr


def test_the_test_auc_comes_near_the_ceiling(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = finished
    auc, ceiling = (float(number) for number in re.findall(r"AUC (0\.\d+)", done.stdout.partition("\nTest ")[2]))
    # 5000 rows have a standard error of .006, and 300 rows a user are not many.
    assert ceiling - 0.06 < auc < ceiling + 0.01


def test_a_run_ends_with_a_verdict(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    directory, done = finished
    of_training = json.loads((directory / "out/runs/sample/model/metrics.json").read_text())["eval"]["auc"]
    auc = json.loads((directory / "out/runs/sample/evaluation/eval/evaluation.json").read_text())["metrics"]["auc"]
    assert auc["value"] == pytest.approx(of_training, abs=1e-3)
    line = f"auc {auc['value']:.4f}  ({auc['low']:.4f} to {auc['high']:.4f}), of the model before the refit\n"
    assert f"Verdict     Ready to ship\n            {line}" in done.stdout
    assert re.search(r"Seconds .* train [\d.]+, evaluate [\d.]+, report ", done.stdout)
    page = (directory / "out/runs/sample/report.html").read_text()
    assert "Ready to ship" in page and "Measured: the model before the refit" in page


@pytest.mark.slow
def test_the_lines_at_the_end_can_be_run(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    directory, done = finished
    lines = done.stdout.partition("To predict with the export, with TensorFlow alone:\n")[2]
    code = "\n".join(line.strip() for line in lines.splitlines())
    shown = subprocess.run([sys.executable, "-c", code], cwd=directory, capture_output=True, text=True, check=True)
    assert re.search(r"\[0\.\d+\], shape=\(1,\)", shown.stdout)


@pytest.mark.slow
def test_the_summary_for_programs(finished: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    directory, done = finished
    again = run(directory, *SMALL, "--json", str(tmp_path / "summary.json"), "--fail_on", "look")
    assert again.returncode == 0, again.stderr
    assert "Verdict     Ready to ship" in again.stdout
    facts = json.loads((tmp_path / "summary.json").read_text())
    assert facts["stage"] == "all"
    checks = facts["verdict"].pop("checks")
    assert facts["verdict"] == {"kind": "go", "headline": "Ready to ship", "reasons": []}
    assert {"name", "value", "rule", "limit", "passed", "fails_as"} == checks[0].keys()
    assert all(check["passed"] for check in checks)
    assert facts["already_done"] == ["preprocess", "train", "evaluate"]
    assert f"auc {facts['metrics']['auc']:.4f}" in done.stdout
    assert f"AUC {facts['test']['auc']:.4f} on held-out rows" in done.stdout
    assert facts["counts"]["read"] == 30_000
    for path in facts["paths"].values():
        assert (directory / path).exists(), path

    # The trained rows cannot decide about a model.
    shutil.copytree(directory / "out", tmp_path / "out")
    refused = run(tmp_path, "evaluate", *SMALL, "--split", "train", "--json", "--fail_on", "look")
    assert refused.returncode == 1
    (line,) = [line for line in refused.stderr.splitlines() if not line.startswith("INFO ")]
    assert line.startswith("run_pipeline.py: error: --fail_on look: These numbers cannot decide. ")
    measured = json.loads(refused.stdout)
    assert measured["verdict"]["kind"] == "look" and measured["metrics"]["auc"]["low"] > 0.5
    assert (tmp_path / measured["paths"]["evaluation"]).exists()
    assert run(tmp_path, "evaluate", *SMALL, "--split", "train", "--fail_on", "stop").returncode == 0


def test_a_second_start_does_nothing(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    directory, first = finished
    before = contents(directory)
    second = run(directory, *SMALL)
    assert second.returncode == 0, second.stderr
    assert second.stderr == ""
    assert contents(directory) == before
    skipped, rest = second.stdout.split("\n", maxsplit=1)
    assert skipped.endswith("preprocess, train and evaluate: already done by an earlier start")
    without_times = "".join(line for line in first.stdout.splitlines(keepends=True) if not line.startswith("Seconds"))
    assert rest == without_times


def test_a_sample_that_was_deleted_is_the_same_input(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    directory, _ = finished
    before = contents(directory / "out" / "sample")
    for path in sorted((directory / "out" / "sample").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    done = run(directory, *SMALL, "--stage", "preprocess")
    assert done.returncode == 0, done.stderr
    assert "preprocess: already done" in done.stdout
    assert contents(directory / "out" / "sample") == before


@pytest.mark.slow
def test_a_model_measured_on_a_split_and_on_new_files(
    finished: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    directory, trained = finished
    shutil.copytree(directory / "out", tmp_path / "out")
    (test,) = (tmp_path / "out" / "sample").glob("*/test.csv")
    report = tmp_path / "out/runs/sample/report.html"
    assert "Measured: the model before the refit" in report.read_text()
    movie = (tmp_path / "out/runs/sample/dataset/vocabulary/movieId.txt").read_text().splitlines()[0]
    (tmp_path / "titles.csv").write_text(f"title,movieId\nHeat & <b>Dust</b>,{movie}\n")
    titles = ("--titles", str(tmp_path / "titles.csv"))
    done = run(tmp_path, *SMALL, "--stage", "evaluate", "--input", str(test), *titles)
    assert done.returncode == 0, done.stderr
    assert f"report  {report.relative_to(tmp_path)}" in done.stdout
    page = report.read_text()
    assert "Measured: the model before the refit" not in page and "Heat &amp; &lt;b&gt;Dust&lt;/b&gt;" in page
    assert all(line.startswith("INFO ") for line in done.stderr.splitlines()), done.stderr
    found = json.loads((tmp_path / "out/runs/sample/evaluation/input-test/evaluation.json").read_text())
    # The same rows as at the end of the training.
    assert f"AUC {found['metrics']['auc']['value']:.4f} on held-out rows" in trained.stdout
    assert f"auc              {found['metrics']['auc']['value']:.4f}  (" in done.stdout
    assert "Warning" not in done.stdout
    of_eval = run(tmp_path, *SMALL, "--stage", "evaluate")
    assert of_eval.returncode == 0, of_eval.stderr
    # The run had evaluated its eval rows at its end; only the page is written again, for these rows.
    assert of_eval.stderr == "" and of_eval.stdout.startswith("Skipped     evaluate: already done")
    assert "before the refit; " in of_eval.stdout and "Warning" not in of_eval.stdout
    assert "Measured: the model before the refit" in report.read_text()
    before = contents(tmp_path)
    again = run(tmp_path, *SMALL, "--stage", "evaluate", "--split", "eval")
    assert again.returncode == 0 and again.stderr == ""
    assert contents(tmp_path) == before
    # Titles are also put into the page of a finished run.
    assert "Heat &amp;" not in report.read_text()
    assert run(tmp_path, *SMALL, *titles).returncode == 0
    assert "Heat &amp;" in report.read_text() and "Measured: the model before the refit" in report.read_text()


def test_nothing_to_evaluate_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "--stage", "evaluate")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1 and "run `--stage preprocess` first" in done.stderr


@pytest.mark.slow
def test_a_search_and_a_training_with_what_it_found(
    finished: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    directory, _ = finished
    shutil.copytree(directory / "out/runs/sample/dataset", tmp_path / "out/runs/sample/dataset")
    shutil.copytree(directory / "out/sample", tmp_path / "out/sample")
    with opened_files(tmp_path / "out/sample") as opened:
        searched = run(tmp_path, *SMALL, "--set=trainer.tune.trials=2", "--stage", "tune")
        # The search does not read the test rows.
        assert not [path for path in opened() if path.name == "test.csv"]
    assert searched.returncode == 0, searched.stderr
    assert "2 trials; they and the choice cost as much as" in searched.stdout
    # The printed command can be run as it is.
    command = searched.stdout.partition("To train with these options:\n")[2].split()
    assert command[:2] == ["python", "run_pipeline.py"]
    trained = run(tmp_path, *command[2:])
    assert trained.returncode == 0, trained.stderr
    metrics = json.loads((tmp_path / "out/runs/sample/model/metrics.json").read_text())
    found = yaml.safe_load((tmp_path / "out/runs/sample/tune/tuned.yaml").read_text())["trainer"]
    for key in ("l2", "bias_l2_factor"):
        assert found.get(key) in (None, metrics["config"][key])


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on(
    finished: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    directory, _ = finished
    for part in ("out/runs/sample/dataset", "out/sample"):
        shutil.copytree(directory / part, tmp_path / part)
    flags = (*SMALL, "--set=trainer.tune.trials=3", "--stage", "tune")
    tuning = tmp_path / "out/runs/sample/tune"
    command = [sys.executable, str(ROOT / "run_pipeline.py"), *flags]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # The second trial has its options.
    while '"trial_id":1,"param_name"' not in journal(tuning):
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    before = journal(tuning)
    assert not (tuning / "tuned.yaml").exists()

    again = run(tmp_path, *flags)
    assert again.returncode == 0, again.stderr
    assert "3 trials" in again.stdout
    assert journal(tuning).startswith(before)
    with (tuning / "trials.csv").open() as file:
        trials = {int(row["trial"]): row for row in csv.DictReader(file)}
    # The first trial, which was complete, was not done again; the one that was killed counts for nothing.
    assert trials.keys() == {1, 2, 3}
    assert '"trial_id":0' not in journal(tuning).removeprefix(before)
    (chosen,) = (float(row["l2"]) for row in trials.values() if row["chosen"])
    assert yaml.safe_load((tuning / "tuned.yaml").read_text())["trainer"]["l2"] == pytest.approx(chosen, rel=1e-5)


def journal(directory: Path) -> str:
    path = directory / "journal.log"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize(
    ("override", "part"),
    [("pipeline.seed=7", "`pipeline.seed` 42, not 7"), ("trainer.seed=7", "trainer.seed: 42 -> 7")],
)
def test_another_configuration_is_not_mixed_in(
    finished: tuple[Path, subprocess.CompletedProcess[str]], override: str, part: str
) -> None:
    directory, _ = finished
    before = contents(directory)
    done = run(directory, *SMALL, "--set", override)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert part in done.stderr
    assert "--run_id" in done.stderr
    assert contents(directory) == before


@pytest.mark.slow
def test_a_failure_of_a_worker_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("userId,movieId,rating,timestamp\n1,2,4.0,5\n1,x,4.0,5\n")
    done = run(tmp_path, "--config", str(ROOT / "configs" / "movielens.yaml"), "--input", "log.csv")
    assert done.returncode == 1
    *progress, last = done.stderr.splitlines()
    assert all(line.startswith("INFO ") for line in progress), done.stderr
    assert last.startswith("run_pipeline.py: error: ")
    assert "log.csv" in last
    assert "while running" not in last
    assert not (tmp_path / "out/runs/movielens/dataset/manifest.json").exists()
