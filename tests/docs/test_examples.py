"""Runs the programs in examples/."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dotbias.cli.arguments import parse_arguments
from dotbias.cli.configuration.load import load_configuration

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def test_dataflow_types_two_commands_that_the_command_takes(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        f'#!{sys.executable}\nimport json, sys\nopen("{tmp_path}/typed", "a").write(json.dumps(sys.argv[1:]) + "\\n")\n'
    )
    python.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PROJECT": "my-project",
        "BUCKET": "my-bucket",
        "REGION": "europe-west1",
    }
    subprocess.run(
        [EXAMPLES / "dataflow.sh", "configs/movielens.yaml", "2026-11-24"], cwd=ROOT, env=environment, check=True
    )
    typed = [json.loads(line) for line in (tmp_path / "typed").read_text().splitlines()]
    assert [argv[0] for argv in typed] == ["run_pipeline.py"] * 2
    preprocess, train = (parse_arguments(argv[1:]) for argv in typed)
    assert (preprocess.stage, preprocess.runner) == ("preprocess", "DataflowRunner")
    assert (train.stage, train.runner) == ("train", None)
    for arguments in (preprocess, train):
        assert arguments.run_id == "2026-11-24"
        configuration = load_configuration(str(ROOT / arguments.config), arguments.overrides, arguments.input)
        assert configuration.pipeline.window.until is not None
        assert configuration.pipeline.input.patterns == ("gs://my-bucket/logs/*",)


@pytest.mark.slow
def test_evaluate_production_compares_two_exports(tmp_path: Path) -> None:
    """Compares a longer training with a production model of one epoch, then the other way around."""

    def command(run_id: str, *overrides: str) -> None:
        flags = [flag for override in ("sample.rows=40000", *overrides) for flag in ("--set", override)]
        subprocess.run([sys.executable, ROOT / "run_pipeline.py", "--run_id", run_id, *flags], cwd=tmp_path, check=True)

    command("good")
    command("poor", "trainer.epochs=1", "trainer.optimizer.learning_rate=0.0001", "trainer.refit=false")
    (new,) = tmp_path.glob("out/sample/*/test.csv")
    shutil.copy(new, tmp_path / "new.csv")

    def compare(run_id: str, production: str) -> subprocess.CompletedProcess[str]:
        flags = ["--config", str(ROOT / "configs" / "sample.yaml"), "--run_id", run_id, "--input", "new.csv"]
        export = f"out/runs/{production}/model/export"
        program = [sys.executable, str(EXAMPLES / "evaluate_production.py"), *flags, "--production", export]
        return subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)

    better, worse = compare("good", "poor"), compare("poor", "good")
    assert (better.returncode, worse.returncode) == (0, 1), better.stderr + worse.stderr
    assert "not clearly worse" in better.stdout
    assert "The new model is clearly worse." in worse.stdout
