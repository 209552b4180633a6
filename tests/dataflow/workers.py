"""Makes an environment like that of a worker of Dataflow: its packages and what was staged, nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tests.dataflow.command import ROOT

# Runs the staged job with workers that are processes of another interpreter, instead of containers.
_REPLAY = """
import sys
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms import environments

job = beam_runner_api_pb2.Pipeline.FromString(open(sys.argv[1], "rb").read())
worker = f"{sys.argv[2]} -m apache_beam.runners.worker.sdk_worker_main"
for environment in job.components.environments.values():
    environment.urn = python_urns.SUBPROCESS_SDK
    environment.payload = worker.encode()
    # They are installed.
    del environment.dependencies[:]
result = FnApiRunner().run_via_runner_api(job, PipelineOptions())
result.wait_until_finish()
"""


def make_worker(directory: Path, requirements: str = "worker-requirements.txt") -> Path:
    """Makes an environment of the packages that a file of deploy/ pins, linked from this one; returns its Python."""
    # Without the older setuptools that some Pythons would add.
    venv.create(directory, with_pip=False)
    site = _site_packages(directory)
    _link(Requirement("pip"), site)
    for line in (ROOT / "deploy" / requirements).read_text().splitlines():
        if line[:1].isalnum():
            requirement = Requirement(line.rstrip(" \\"))
            if requirement.marker is None or requirement.marker.evaluate():
                _link(requirement, site)
    return directory / "bin" / "python"


def install(python: Path, package: Path) -> None:
    """Installs the archive that `--setup_file` has built, as a worker does, but without a network."""
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", str(package)],
        check=True,
        cwd="/",
        env=_without_this_repository(dict(os.environ)),
    )


def replay(job: Path, python: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _REPLAY, str(job), str(python)],
        cwd="/",
        env=_without_this_repository(environment),
        capture_output=True,
        text=True,
    )


def _without_this_repository(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith("PYTHON")}


def _site_packages(directory: Path) -> Path:
    return directory / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def _link(requirement: Requirement, site: Path) -> None:
    distribution = metadata.distribution(requirement.name)
    assert requirement.specifier.contains(distribution.version, prereleases=True), (
        f"{requirement} is pinned, but {distribution.version} is installed"
    )
    for file in distribution.files or []:
        source, target = Path(str(file.locate())), site / file
        # Scripts stand outside.
        if ".." not in file.parts and file.suffix != ".pyc" and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
