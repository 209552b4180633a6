"""Checks what a job on Dataflow needs before anything is staged, and gives its workers this package."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dotbias.cli.failures import UsageError
from pipeline.storage.paths import is_remote

_ROOT = Path(__file__).resolve().parents[3]
# The package, and the exact versions of the packages that a worker imports.
SETUP_FILE = _ROOT / "setup.py"
REQUIREMENTS_FILE = _ROOT / "deploy" / "worker-requirements.txt"

_REQUIRED = {"project": "PROJECT", "region": "REGION", "temp_location": "gs://BUCKET/tmp"}


def is_dataflow(runner: str) -> bool:
    return runner.lower().rsplit(".", maxsplit=1)[-1] in ("dataflow", "dataflowrunner")


def check_dataflow(values: Mapping[str, Any]) -> None:
    """Raises `UsageError` if an option that Dataflow needs is missing, or if there are no credentials."""
    # Beam checks later, and asks the network for a bucket to use or to create.
    missing = [f"--{name} {value}" for name, value in _REQUIRED.items() if not values.get(name)]
    if missing:
        raise UsageError(f"Dataflow needs {' and '.join(missing)}")
    for name in ("temp_location", "staging_location"):
        location = values.get(name)
        if location and not location.startswith("gs://"):
            raise UsageError(f"--{name} should start with gs:// for Dataflow. Received: {location!r}")
    if not values.get("dry_run"):
        _check_credentials(values)


def _check_credentials(values: Mapping[str, Any]) -> None:
    """Looks for credentials once; Beam looks for half a minute and then goes on without any."""
    import google.auth
    from google.auth.exceptions import GoogleAuthError

    try:
        google.auth.default(scopes=values.get("gcp_oauth_scopes"))
    except GoogleAuthError as error:
        raise UsageError(
            f"no credentials for Google Cloud ({str(error).splitlines()[0].rstrip('.')}): type `gcloud auth "
            "application-default login`, or name a service account's key in GOOGLE_APPLICATION_CREDENTIALS"
        ) from None


def check_places(output_root: str, patterns: Iterable[str]) -> None:
    """Raises `UsageError` if input or output is on a local disk, which workers cannot reach."""
    for flag, path in (("--output_root", output_root), *(("--input", pattern) for pattern in patterns)):
        if not is_remote(path):
            raise UsageError(
                f"{flag} should start with gs:// for Dataflow, whose workers have disks of their own. "
                f"Received: {path!r}"
            )


def dataflow_defaults(values: Mapping[str, Any], run_id: str) -> list[str]:
    """Returns flags for what is not given: the name of the job, and how workers get this package.

    Raises:
        UsageError: there is no checkout to send to the workers.
    """
    # Dataflow refuses a second job of the same name, so two jobs cannot make one run at the same time.
    name = re.sub("[^a-z0-9]+", "-", f"dotbias-{run_id.lower()}").strip("-")
    return [*([] if values.get("job_name") else [f"--job_name={name}"]), *_packaging(values)]


def _packaging(values: Mapping[str, Any]) -> list[str]:
    if any(values.get(name) for name in ("sdk_container_image", "setup_file", "prebuild_sdk_container_engine")):
        return []
    if not SETUP_FILE.is_file() or not REQUIREMENTS_FILE.is_file():
        raise UsageError(
            f"Dataflow's workers need this package, and {SETUP_FILE.parent} has no setup.py to send: pass "
            "--sdk_container_image IMAGE (made with deploy/Dockerfile), or start run_pipeline.py in a checkout"
        )
    arguments = [f"--setup_file={SETUP_FILE}"]
    if not values.get("requirements_file"):
        # Only the list is sent: a worker downloads faster than this machine downloads and uploads.
        arguments += [f"--requirements_file={REQUIREMENTS_FILE}", "--requirements_cache=skip"]
    return arguments
