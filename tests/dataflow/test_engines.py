"""Runs the job on Prism, Beam's portable runner, which implements a runner's work a second time, in Go.

Its workers talk to it by the protocol of Flink's, Spark's and Dataflow's. `make prism` builds it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.dataflow.command import HEADER, ROOT, dataset, preprocess, ratings

pytestmark = pytest.mark.slow

SAME_EVERYWHERE = ("train", "eval", "vocabulary", "rejected")

# The paths through the graph: with and without a cut in time, and with and without a shuffle by user and item.
CONFIGURATIONS = {
    "random": (),
    "time": ("--set=pipeline.split={method: time, eval_fraction: 0.2}", "--set=pipeline.duplicates=last"),
    "hash": ("--set=pipeline.split={method: hash, column: userId, eval_fraction: 0.2}",),
}

_POOL = """
import sys
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
address, server = BeamFnExternalWorkerPoolServicer.start(use_process=True)
print(address, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def prism() -> str:
    named = os.environ.get("DOTBIAS_PRISM", str(ROOT / ".venv" / "bin" / "prism"))
    if not os.access(named, os.X_OK):
        pytest.skip("Prism is not here: `make prism` builds it, or DOTBIAS_PRISM names its binary")
    return named


@pytest.fixture(scope="module")
def ten_files(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns a pattern of ten files, so that there are several bundles; every file has a bad row."""
    directory = tmp_path_factory.mktemp("log")
    for number in range(10):
        (directory / f"{number}.csv").write_text(HEADER + ratings(500, seed=number) + "1,2,9.5,3\n")
    return str(directory / "*")


@contextmanager
def worker_pool() -> Iterator[str]:
    """Starts workers in processes of their own when an engine asks for one; yields its address."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        # It starts them as `python`.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    with subprocess.Popen(
        [sys.executable, "-c", _POOL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as pool:
        assert pool.stdin is not None and pool.stdout is not None
        yield pool.stdout.readline().strip()
        pool.stdin.close()


def contents(directory: Path) -> dict[str, bytes]:
    paths = [path for name in SAME_EVERYWHERE for path in (directory / name).glob("*")]
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_prism_makes_the_same_bytes(prism: str, ten_files: str, tmp_path: Path, configuration: str) -> None:
    flags = CONFIGURATIONS[configuration]
    in_process = preprocess(os.environ, str(tmp_path / "in_process"), *flags, pattern=ten_files)
    assert in_process.returncode == 0, in_process.stderr
    expected = contents(tmp_path / dataset("in_process"))
    assert len(expected) > 10

    on_prism = ("--runner=PrismRunner", f"--prism_location={prism}")
    here = preprocess(
        os.environ, str(tmp_path / "here"), *flags, *on_prism, "--environment_type=LOOPBACK", pattern=ten_files
    )
    assert here.returncode == 0, here.stderr
    assert contents(tmp_path / dataset("here")) == expected

    with worker_pool() as address:
        outside = ("--environment_type=EXTERNAL", f"--environment_config={address}")
        apart = preprocess(os.environ, str(tmp_path / "apart"), *flags, *on_prism, *outside, pattern=ten_files)
    assert apart.returncode == 0, apart.stderr
    assert contents(tmp_path / dataset("apart")) == expected


def test_a_failure_on_prism_is_one_line(prism: str, ten_files: str, tmp_path: Path) -> None:
    directory = tmp_path / "log"
    shutil.copytree(Path(ten_files).parent, directory)
    (directory / "5.csv").write_text("userId,movieId,stars,timestamp\n1,2,3,4\n")
    on_prism = ("--runner=PrismRunner", f"--prism_location={prism}", "--environment_type=LOOPBACK")
    done = preprocess(os.environ, str(tmp_path / "out"), *on_prism, pattern=str(directory / "*"))
    assert done.returncode == 1
    # The worker in the same process also writes to stderr.
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("run_pipeline.py: error: "))
    assert "5.csv: the header has no column 'rating'" in said
    assert not (tmp_path / dataset("out") / "manifest.json").exists()
