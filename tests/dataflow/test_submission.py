"""Submits a job to a fake of Dataflow's API."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.requirements import Requirement

from dotbias.cli.beam.dataflow import check_places
from dotbias.cli.beam.flags import beam_arguments
from dotbias.cli.failures import UsageError
from tests.dataflow.command import ROOT, dataset, on_dataflow, preprocess
from tests.dataflow.service import JOB_ID, Service, dataflow_service
from tests.dataflow.storage import Storage
from tests.dataflow.workers import install, make_worker, replay


class Submitted(NamedTuple):
    done: subprocess.CompletedProcess[str]
    job: dict[str, Any]
    path: str
    # Staged under the name that a worker expects.
    staged: dict[str, bytes]


@pytest.fixture(scope="package")
def submitted(bucket: Storage) -> Iterator[Submitted]:
    with dataflow_service() as service:
        done = preprocess(
            bucket.environment,
            "gs://bucket/submitted",
            *on_dataflow(service),
            "--no_wait_until_finish",
            "--labels=team=recs",
        )
        assert done.returncode == 0, done.stderr
        (job,) = service.jobs
        staged = {name.rpartition("/")[2]: bucket.read(name) for name in bucket.names("tmp/dotbias-")}
        yield Submitted(done, job, service.paths[0], staged)


def test_the_job_says_what_was_asked_for(submitted: Submitted) -> None:
    assert submitted.path == "/v1b3/projects/my-project/locations/europe-west1/jobs"
    # Two starts of one run have the same name, of which Dataflow runs only one at a time.
    assert submitted.job["name"] == "dotbias-2026-11-24"
    assert submitted.job["labels"] == {"team": "recs"}
    environment = submitted.job["environment"]
    assert environment["version"]["job_type"] == "FNAPI_BATCH"
    assert environment["tempStoragePrefix"].startswith("storage.googleapis.com/bucket/tmp/dotbias-2026-11-24.")
    options = {option["key"]: option.get("value") for option in environment["sdkPipelineOptions"]["display_data"]}
    assert options["region"] == "europe-west1"
    assert options["setup_file"] == str(ROOT / "setup.py")
    # Workers do not need the state of the launching module.
    assert "save_main_session" not in options or not options["save_main_session"]


def test_what_is_staged(submitted: Submitted) -> None:
    (pool,) = submitted.job["environment"]["workerPools"]
    named = {package["name"] for package in pool["packages"]}
    assert named == {"workflow.tar.gz", "requirements.txt", "submission_environment_dependencies.txt"}
    assert named | {"pipeline.pb"} == set(submitted.staged)
    assert submitted.staged["requirements.txt"] == (ROOT / "deploy" / "worker-requirements.txt").read_bytes()
    with tarfile.open(fileobj=BytesIO(submitted.staged["workflow.tar.gz"])) as archive:
        modules = {name.partition("/")[2] for name in archive.getnames()}
    for path in (ROOT / "pipeline").glob("*.py"):
        assert f"pipeline/{path.name}" in modules


def test_what_is_printed(submitted: Submitted) -> None:
    assert f"job {JOB_ID}" in submitted.done.stdout
    assert f"gs://bucket/{dataset('submitted')}manifest.json" in submitted.done.stdout
    assert f"/dataflow/jobs/europe-west1/{JOB_ID}" in submitted.done.stderr
    assert len(submitted.done.stderr.splitlines()) < 10, submitted.done.stderr


@pytest.mark.slow
def test_a_dry_run_builds_the_job_and_leaves_no_trace(bucket: Storage, service: Service) -> None:
    bucket.write(dataset("dry") + "train/part", b"of a job that runs")
    before = bucket.contents("")
    done = preprocess(bucket.environment, "gs://bucket/dry", *on_dataflow(service), "--dry_run", "True")
    assert done.returncode == 0, done.stderr
    assert "Checked" in done.stdout
    assert not service.jobs
    assert bucket.contents("") == before


@pytest.mark.slow
def test_a_job_that_fails_is_one_line(bucket: Storage, service: Service) -> None:
    service.states = ["JOB_STATE_RUNNING", "JOB_STATE_FAILED"]
    said = "pipeline.storage.paths.InputError: gs://bucket/log/2026-11-24.csv.gz cannot be read to its end"
    service.messages = [
        ("JOB_MESSAGE_ERROR", f"Traceback (most recent call last):\n  ...\n{said} [while running 'ReadRanges']\n")
    ]
    done = preprocess(bucket.environment, "gs://bucket/failed", *on_dataflow(service))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "run_pipeline.py: error: gs://bucket/log/2026-11-24.csv.gz cannot be read to its end"
    )


@pytest.mark.slow
def test_a_job_that_is_refused_is_one_line(bucket: Storage, service: Service) -> None:
    service.refusal = (409, "There is already an active job named dotbias-2026-11-24.")
    done = preprocess(bucket.environment, "gs://bucket/refused", *on_dataflow(service))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith("run_pipeline.py: error: Google Cloud refuses: 409")
    assert "already an active job" in said


_CLOUD = ("--project=my-project", "--region=europe-west1", "--temp_location=gs://bucket/tmp")


@pytest.fixture
def credentials(bucket: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", bucket.environment["GOOGLE_APPLICATION_CREDENTIALS"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "Dataflow needs --project PROJECT and --region REGION and --temp_location gs://BUCKET/tmp"),
        (_CLOUD[1:], "Dataflow needs --project PROJECT"),
        (_CLOUD[::2], "Dataflow needs --region REGION"),
        (_CLOUD[:2], "Dataflow needs --temp_location gs://BUCKET/tmp"),
        ((*_CLOUD[:2], "--temp_location=/tmp"), "--temp_location should start with gs:// for Dataflow"),
        ((*_CLOUD, "--staging_location=/tmp"), "--staging_location should start with gs:// for Dataflow"),
    ],
)
@pytest.mark.usefixtures("credentials")
def test_a_flag_that_is_missing(flags: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        beam_arguments("DataflowRunner", flags, "r")
    assert said in str(raised.value)


def test_credentials_that_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    # Where gcloud keeps its own, and a machine of Google's that would have some.
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(UsageError, match="gcloud auth application-default login"):
        beam_arguments("DataflowRunner", _CLOUD, "r")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing"))
    with pytest.raises(UsageError, match="missing"):
        beam_arguments("DataflowRunner", _CLOUD, "r")


@pytest.mark.usefixtures("credentials")
def test_how_the_package_comes_to_the_workers() -> None:
    sent = (f"--setup_file={ROOT / 'setup.py'}", f"--requirements_file={ROOT / 'deploy' / 'worker-requirements.txt'}")
    assert {*sent, "--requirements_cache=skip"} <= set(beam_arguments("DataflowRunner", _CLOUD, "r"))
    for other in ("--sdk_container_image=image", "--setup_file=./setup.py"):
        assert beam_arguments("dataflow", (*_CLOUD, other, "--job_name=j"), "r") == [
            "--runner=dataflow",
            *_CLOUD,
            other,
            "--job_name=j",
        ]


@pytest.mark.parametrize("run_id", ["2026-11-24", "2026.11.24", "A b_ü", "..."])
@pytest.mark.usefixtures("credentials")
def test_the_name_of_a_job_is_one_that_dataflow_takes(run_id: str) -> None:
    from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
    from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator

    options = PipelineOptions(beam_arguments("DataflowRunner", _CLOUD, run_id))
    validator = PipelineOptionsValidator(options, None)
    assert validator.is_full_string_match(validator.JOB_PATTERN, options.view_as(GoogleCloudOptions).job_name)


@pytest.mark.parametrize(
    ("output_root", "patterns", "flag"),
    [("out", ("gs://bucket/log",), "--output_root"), ("gs://bucket/out", ("gs://bucket/log", "log.csv"), "--input")],
)
def test_a_place_that_workers_cannot_see(output_root: str, patterns: tuple[str, ...], flag: str) -> None:
    with pytest.raises(UsageError, match=f"{flag} should start with gs://"):
        check_places(output_root, patterns)


@pytest.mark.parametrize("flag", ["--dry_run=True", "--no_wait_until_finish"])
def test_flags_for_jobs_elsewhere_are_refused_here(flag: str) -> None:
    with pytest.raises(UsageError, match="jobs that run elsewhere"):
        beam_arguments(None, (flag,), "r")


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_requirements_of_workers_are_those_of_the_lock(python: str) -> None:
    """Requirements have the versions that a worker with that Python installs; markers may exclude a line."""
    machine = {"python_version": python, "python_full_version": f"{python}.1", "platform_machine": "x86_64"}

    def pins(path: str) -> set[str]:
        lines = (line.rstrip(" \\") for line in (ROOT / path).read_text().splitlines() if line[:1].isalnum())
        requirements = [Requirement(line) for line in lines]
        return {f"{one.name}{one.specifier}" for one in requirements if not one.marker or one.marker.evaluate(machine)}

    workers = pins("deploy/worker-requirements.txt")
    assert workers <= pins("requirements.lock")
    names = {pin.partition("==")[0] for pin in workers}
    assert {"apache-beam", "tensorflow-transform", "tfx-bsl", "pyarrow", "isal", "pydantic"} <= names
    assert not {"tensorflow-recommenders", "pytest", "polars"} & names


@pytest.mark.slow
def test_a_launcher_of_flex_templates_describes_the_job(bucket: Storage, service: Service) -> None:
    """The launcher gives `--template_location`, and starts the written job when the command has ended."""
    flags = (*on_dataflow(service), "--template_location=gs://bucket/template/job_object", "--job_name=nightly-1")
    image = "europe-west1-docker.pkg.dev/my-project/dotbias/dotbias"
    done = preprocess(bucket.environment, "gs://bucket/template_out", *flags, f"--sdk_container_image={image}")
    assert done.returncode == 0, done.stderr
    assert not service.jobs
    job = json.loads(bucket.read("template/job_object"))
    assert job["name"] == "nightly-1"
    (pool,) = job["environment"]["workerPools"]
    assert pool["workerHarnessContainerImage"] == image
    # The package is in the image.
    assert {package["name"] for package in pool["packages"]} == {"submission_environment_dependencies.txt"}


@pytest.mark.slow
def test_the_staged_job_runs_where_only_its_packages_are(submitted: Submitted, bucket: Storage, tmp_path: Path) -> None:
    (tmp_path / "pipeline.pb").write_bytes(submitted.staged["pipeline.pb"])
    (tmp_path / "workflow.tar.gz").write_bytes(submitted.staged["workflow.tar.gz"])
    python = make_worker(tmp_path / "worker")

    without = replay(tmp_path / "pipeline.pb", python, bucket.environment)
    assert without.returncode != 0
    assert "No module named 'pipeline'" in without.stderr

    install(python, tmp_path / "workflow.tar.gz")
    done = replay(tmp_path / "pipeline.pb", python, bucket.environment)
    assert done.returncode == 0, done.stderr[-5000:]
    # The command finds the dataset of the submitted job complete.
    again = preprocess(bucket.environment, "gs://bucket/submitted")
    assert "preprocess: already done by an earlier start" in again.stdout
    in_process = preprocess(bucket.environment, "gs://bucket/in_process")
    assert in_process.returncode == 0, in_process.stderr

    def bytes_of(root: str) -> dict[str, bytes]:
        contents = bucket.contents(dataset(root))
        return {name: data for name, data in contents.items() if name.startswith(("train/", "eval/", "vocabulary/"))}

    assert bytes_of("submitted") == bytes_of("in_process")
