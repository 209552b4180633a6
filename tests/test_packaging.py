"""Installs the wheel, the source distribution and the image, and uses each without a checkout."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from fnmatch import fnmatch
from pathlib import Path

import pytest

from pipeline.manifest import read_manifest
from tests.dataflow.image import instructions
from tests.dataflow.workers import install, make_worker

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
SMALL = ("rows=4000", "test_rows=500", "users=50", "items=30")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies what `docker build` sends: the repository without what Dockerfile.dockerignore names."""
    patterns = [line for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] != "#"]

    def ignored(directory: str, names: list[str]) -> list[str]:
        at_any_depth = [pattern.removeprefix("**/") for pattern in patterns if pattern.startswith("**/")]
        here = patterns + at_any_depth if Path(directory) == ROOT else at_any_depth
        return [name for name in names if any(fnmatch(name, pattern) for pattern in here)]

    return shutil.copytree(ROOT, tmp_path_factory.mktemp("build") / "context", symlinks=True, ignore=ignored)


@pytest.fixture(scope="module")
def distributions(context: Path) -> Path:
    """Returns a directory with the source distribution and the wheel that is made from it."""
    target = context.parent / "dist"
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(context)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=target.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def worker(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the interpreter of an environment with the workers' packages and the source distribution."""
    python = make_worker(tmp_path_factory.mktemp("worker"))
    install(python, next(distributions.glob("*.tar.gz")))
    return python


@pytest.fixture(scope="module")
def complete(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the interpreter of an environment with the packages of this one and the wheel."""
    directory = tmp_path_factory.mktemp("complete")
    venv.create(directory, with_pip=False)
    (site,) = directory.glob("lib/*/site-packages")
    (site / "packages.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    install(directory / "bin" / "python", next(distributions.glob("*.whl")))
    return directory / "bin" / "python"


def run(python: Path, directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a program of the interpreter's environment, from a directory that holds nothing of the project."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    program = [str(python.parent / command[0]), *command[1:]]
    return subprocess.run(program, cwd=directory, env=environment, capture_output=True, text=True)


def small() -> list[str]:
    return [f"--set=sample.{option}" for option in SMALL] + ["--set=trainer.epochs=1"]


@pytest.mark.slow
@pytest.mark.parametrize("environment", ["worker", "complete"])
def test_all_files_of_the_packages_are_installed(
    environment: str, context: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    python: Path = request.getfixturevalue(environment)
    code = "import dotbias, pipeline.preprocess as p, trainer; print(dotbias.__file__, p.__file__, trainer.__file__)"
    found = run(python, tmp_path, "python", "-c", code)
    assert found.returncode == 0, found.stderr
    for package in (Path(file).parent for file in found.stdout.split()):
        assert python.parents[1] in package.parents
        for path in (context / package.name).rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                assert (package / path.relative_to(context / package.name)).is_file(), path
        assert (package / "py.typed").is_file()


def test_the_command_without_a_checkout(worker: Path, tmp_path: Path) -> None:
    shown = run(worker, tmp_path, "dotbias", "--help")
    assert shown.returncode == 0 and shown.stdout.startswith("usage: dotbias [STAGE]")
    for config in ("movielens", "hashing"):
        refused = run(worker, tmp_path, "dotbias", "--config", config)
        assert refused.returncode == 2
        assert refused.stderr.startswith("dotbias: error: ") and "--input" in refused.stderr
    refused = run(worker, tmp_path, "dotbias", "--config", "configs/movieland.yaml")
    assert refused.stderr == (
        "dotbias: error: --config: there is no file configs/movieland.yaml; did you mean --config movielens?\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_beam_job_with_the_packages_of_a_worker(worker: Path, tmp_path: Path) -> None:
    """Workers in processes of their own import what is installed."""
    flags = ("--direct_num_workers", "2", "--direct_running_mode", "multi_processing")
    done = run(worker, tmp_path, "dotbias", "preprocess", *small(), *flags)
    assert done.returncode == 0, done.stderr
    assert read_manifest(str(tmp_path / "out/runs/sample/dataset")).counts.read == 4000


@pytest.mark.slow
def test_from_log_to_model_with_the_wheel(complete: Path, tmp_path: Path) -> None:
    done = run(complete, tmp_path, "dotbias", *small())
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/runs/sample/model/export/saved_model.pb").is_file()
    assert (tmp_path / "out/runs/sample/report.html").is_file()


@pytest.mark.slow
def test_dataflow_without_a_checkout_needs_an_image(worker: Path, tmp_path: Path) -> None:
    key = {"type": "authorized_user", "client_id": "a", "client_secret": "b", "refresh_token": "c"}
    (tmp_path / "adc.json").write_text(json.dumps(key))
    flags = ["--runner=DataflowRunner", "--project=pro-ject", "--region=r", "--temp_location=gs://b/t"]
    code = (
        "import os, sys; os.environ['GOOGLE_APPLICATION_CREDENTIALS'] = 'adc.json'\n"
        f"from dotbias.cli.main import main; sys.exit(main(['--config=movielens', '--input=gs://b/l', *{flags!r}]))"
    )
    refused = run(worker, tmp_path, "python", "-c", code)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1, refused.stderr
    assert "--sdk_container_image IMAGE" in refused.stderr and "checkout" in refused.stderr


@pytest.mark.slow
def test_the_image(context: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Does what deploy/Dockerfile says in temporary roots: its own COPY lines, and its RUN lines without a network.

    The image's packages are linked beforehand, so that the line which downloads them only checks the pins.
    """
    roots: dict[str, Path] = {}
    for keyword, rest in instructions():
        words = shlex.split(rest)
        if keyword == "FROM":
            root = tmp_path_factory.mktemp("image")
            roots[words[-1]] = root
            built = words[-1] == "package"
            python = Path(sys.executable) if built else make_worker(root / "venv", "image-requirements.txt")
            (root / "bin").mkdir()
            (root / "bin" / "pip").write_text(f'#!/bin/sh\nexec {python} -m pip "$@"\n')
            (root / "bin" / "pip").chmod(0o755)
            directory = root
        elif keyword == "WORKDIR":
            directory = root / words[0].lstrip("/")
            directory.mkdir()
        elif keyword == "COPY":
            origin = re.match(r"--from=(\S+)", rest)
            if origin is None or origin[1] in roots:
                *sources, target = words[1:] if origin else words
                for source in sources:
                    copied = (roots[origin[1]] if origin else context) / source.lstrip("/")
                    place = root / target.lstrip("/") if target.startswith("/") else directory / target / copied.name
                    shutil.copytree(copied, place, symlinks=True) if copied.is_dir() else shutil.copy(copied, place)
        elif keyword == "RUN":
            assert "pip" in words
            environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
            environment |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
            environment["PATH"] = f"{root / 'bin'}{os.pathsep}{environment['PATH']}"
            inside = re.sub(r"(?<= )/(?=\w)", f"{root}/", rest)
            done = subprocess.run(["sh", "-c", inside], cwd=directory, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{inside}\n{done.stdout}{done.stderr}"
        elif keyword == "ENV" and words[0].startswith("FLEX_TEMPLATE_PYTHON_PY_FILE="):
            started = root / words[0].partition("=/")[2]
    shown = run(python, directory, "python", str(started), "--help")
    assert shown.returncode == 0, shown.stderr
    code = "import pipeline.preprocess; print(pipeline.__file__)"
    found = run(python, Path("/"), "python", "-c", code)
    assert found.stdout.startswith(str(root / "venv")), found.stderr
