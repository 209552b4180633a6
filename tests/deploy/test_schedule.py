"""Runs the workflow of deploy/schedule.yaml against services that accept only requests of Google's API."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from google.cloud import aiplatform_v1, dataflow_v1beta3
from google.cloud.aiplatform_v1.services.job_service.transports.rest_base import _BaseJobServiceRestTransport
from google.cloud.dataflow_v1beta3.services.flex_templates_service.transports.rest_base import (
    _BaseFlexTemplatesServiceRestTransport,
)
from google.cloud.dataflow_v1beta3.services.jobs_v1_beta3.transports.rest_base import _BaseJobsV1Beta3RestTransport
from google.protobuf import json_format

from dotbias.cli.arguments import parse_arguments
from dotbias.retraining.runs import RunPaths
from pipeline.manifest import MANIFEST_NAME
from tests.deploy.workflow import Request, Workflow, WorkflowError

ROOT = Path(__file__).resolve().parents[2]
SCHEDULE = (ROOT / "deploy" / "schedule.yaml").read_text()
IMAGE = "europe-west1-docker.pkg.dev/my-project/dotbias/dotbias:1"
ENVIRONMENT = {
    "GOOGLE_CLOUD_PROJECT_ID": "my-project",
    "GOOGLE_CLOUD_LOCATION": "europe-west1",
    "DOTBIAS_BUCKET": "my-bucket",
    "DOTBIAS_IMAGE": IMAGE,
}
_VERTEX = "europe-west1-aiplatform.googleapis.com"
_DATAFLOW = "dataflow.googleapis.com"
# (host, description of the method, message of its body)
METHODS: list[tuple[str, Any, Any]] = [
    (
        _DATAFLOW,
        _BaseFlexTemplatesServiceRestTransport._BaseLaunchFlexTemplate,
        dataflow_v1beta3.LaunchFlexTemplateRequest,
    ),
    (_DATAFLOW, _BaseJobsV1Beta3RestTransport._BaseGetJob, None),
    (_VERTEX, _BaseJobServiceRestTransport._BaseCreateCustomJob, aiplatform_v1.CustomJob),
    (_VERTEX, _BaseJobServiceRestTransport._BaseGetCustomJob, None),
]
VERTEX_JOB = "projects/123/locations/europe-west1/customJobs/456"


class Cloud:
    """Answers requests to Dataflow, Vertex AI and Cloud Storage, and refuses those that the API does not describe.

    Each request for a state gets the next one of `dataflow` or `vertex`. `objects` are those of
    the bucket.
    """

    def __init__(self, dataflow: list[str] | None = None, vertex: list[str] | None = None) -> None:
        self.states = {"dataflow": dataflow or ["JOB_STATE_DONE"], "vertex": vertex or ["JOB_STATE_SUCCEEDED"]}
        self.objects: dict[str, bytes] = {}
        self.launched: list[dict[str, Any]] = []
        self.trained: list[dict[str, Any]] = []

    def __call__(self, request: Request) -> tuple[int, Any]:
        method, url, body = request
        address = urlsplit(url)
        if address.netloc == "storage.googleapis.com":
            return self._object(method, address.path, address.query)
        description, message = _described(method, address.netloc, address.path)
        if method == "post":
            checked = json_format.ParseDict(body, message.pb()())
            sent = json_format.MessageToDict(checked)
            if description == "LaunchFlexTemplate":
                self.launched.append(sent)
                return 200, {"job": {"id": "2026-11-24_1", "currentState": "JOB_STATE_QUEUED"}}
            self.trained.append(sent)
            return 200, {"name": VERTEX_JOB, "state": "JOB_STATE_PENDING"}
        service, field = ("dataflow", "currentState") if description == "GetJob" else ("vertex", "state")
        assert parse_qs(address.query) == {"fields": [field]}
        assert address.path.endswith("/jobs/2026-11-24_1" if service == "dataflow" else VERTEX_JOB)
        state = self.states[service].pop(0)
        answer = {field: state} if state else {}
        # The state is one that the description has.
        kind = dataflow_v1beta3.Job if service == "dataflow" else aiplatform_v1.CustomJob
        json_format.ParseDict(answer, kind.pb()())
        if state == "JOB_STATE_SUCCEEDED":
            self.objects["dotbias/runs/2026-11-24/decision.json"] = b'{"outcome": "promoted", "reasons": []}'
        return 200, answer

    def _object(self, method: str, path: str, query: str) -> tuple[int, Any]:
        name = re.fullmatch(r"/storage/v1/b/my-bucket/o/([^/]+)", path)
        assert method == "get"
        assert name is not None, path
        found = self.objects.get(unquote(name[1]))
        if found is None:
            return 404, None
        return 200, found if query == "alt=media" else {"name": unquote(name[1])}


def _described(method: str, host: str, path: str) -> tuple[str, Any]:
    """Returns the name of a method and the message of its body."""
    for known_host, description, message in METHODS:
        for option in description._get_http_options():
            # "{project_id}" is one part of a path, and "{parent=projects/*/locations/*}" says which parts.
            pattern = re.sub(r"\{\w+\}", "*", re.sub(r"\{\w+=([^}]+)\}", r"\1", option["uri"]))
            if (method, host) == (option["method"], known_host) and re.fullmatch(
                re.escape(pattern).replace(r"\*", "[^/]+"), path
            ):
                return description.__name__.removeprefix("_Base"), message
    raise AssertionError(f"no API has {method} {host}{path}")


def run(cloud: Cloud, argument: Any = None) -> Any:
    return Workflow(SCHEDULE, ENVIRONMENT, "2026-11-24T01:30:00.123Z", cloud).run(argument or {})


def test_a_night_goes_through_both_jobs_to_the_decision() -> None:
    cloud = Cloud(
        dataflow=["", "JOB_STATE_QUEUED", "JOB_STATE_RUNNING", "JOB_STATE_DONE"],
        vertex=["JOB_STATE_PENDING", "JOB_STATE_RUNNING", "JOB_STATE_SUCCEEDED"],
    )
    assert run(cloud) == {"outcome": "promoted", "reasons": []}
    assert cloud.states == {"dataflow": [], "vertex": []}
    (launch,) = cloud.launched
    parameters = launch["launchParameter"]["parameters"]
    assert (parameters["date"], launch["launchParameter"]["jobName"]) == ("2026-11-24", "dotbias-2026-11-24")


def test_both_jobs_make_the_same_night() -> None:
    """The template's flags and the command on Vertex AI differ only in `--only preprocess`."""
    cloud = Cloud()
    run(cloud)
    template = cloud.launched[0]["launchParameter"]["parameters"]
    beam = "sdk_container_image"
    first = parse_arguments([f"--{name}={value}" for name, value in template.items() if name != beam])
    (pool,) = cloud.trained[0]["jobSpec"]["workerPoolSpecs"]
    second = parse_arguments(pool["containerSpec"]["args"])
    for name in ("stage", "config", "input", "output_root", "overrides"):
        assert getattr(first, name) == getattr(second, name)
    assert first.own == {"date": "2026-11-24", "only": "preprocess"}
    assert second.own == {"date": "2026-11-24", "only": None}
    assert template[beam] == pool["containerSpec"]["imageUri"] == IMAGE


def test_the_date_and_the_machine_can_be_given() -> None:
    cloud = Cloud()
    cloud.objects["dotbias/runs/2026-11-20/decision.json"] = b"{}"
    run(cloud, {"date": "2026-11-20", "machine": "g2-standard-8", "accelerator": "NVIDIA_L4"})
    (pool,) = cloud.trained[0]["jobSpec"]["workerPoolSpecs"]
    assert pool["machineSpec"] == {
        "machineType": "g2-standard-8",
        "acceleratorType": "NVIDIA_L4",
        "acceleratorCount": 1,
    }
    assert "2026-11-20" in pool["containerSpec"]["args"]


def test_without_an_accelerator_none_is_asked_for() -> None:
    cloud = Cloud()
    run(cloud)
    (pool,) = cloud.trained[0]["jobSpec"]["workerPoolSpecs"]
    assert pool["machineSpec"] == {"machineType": "n2-highmem-4"}


def test_a_complete_dataset_is_not_made_again() -> None:
    cloud = Cloud()
    cloud.objects["dotbias/runs/2026-11-24/dataset/manifest.json"] = b"{}"
    assert run(cloud)["outcome"] == "promoted"
    assert (cloud.launched, len(cloud.trained)) == ([], 1)


@pytest.mark.parametrize("state", ["JOB_STATE_FAILED", "JOB_STATE_CANCELLED"])
def test_a_job_of_dataflow_that_failed_fails_the_night(state: str) -> None:
    cloud = Cloud(dataflow=["JOB_STATE_RUNNING", state])
    with pytest.raises(WorkflowError, match=f"jobs/2026-11-24_1 ended with {state}"):
        run(cloud)
    assert not cloud.trained


@pytest.mark.parametrize("state", ["JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED"])
def test_a_training_that_failed_fails_the_night(state: str) -> None:
    with pytest.raises(WorkflowError, match=f"customJobs/456 ended with {state}"):
        run(Cloud(vertex=["JOB_STATE_RUNNING", state]))


def test_a_bucket_that_may_not_be_read_fails_the_night() -> None:
    """The workflow starts Dataflow only if the manifest is missing, not on other errors."""
    cloud = Cloud()
    with pytest.raises(WorkflowError, match="403"):
        Workflow(SCHEDULE, ENVIRONMENT, "2026-11-24T01:30:00Z", lambda request: (403, None)).run({})
    assert not cloud.launched


def test_fields_and_values_that_no_description_has_are_refused() -> None:
    """Checks the checker that the other tests rely on."""
    for right, wrong in (
        ("maxWorkers:", "maximumWorkers:"),
        ("WORKER_IP_PRIVATE", "WORKER_IP_SECRET"),
        ("bootDiskSizeGb:", "diskSizeGb:"),
        ("customJobs", "customJob"),
        ("flexTemplates:launch", "flexTemplates:start"),
    ):
        assert right in SCHEDULE
        broken = SCHEDULE.replace(right, wrong)
        with pytest.raises((json_format.ParseError, AssertionError)):
            Workflow(broken, ENVIRONMENT, "2026-11-24T01:30:00Z", Cloud()).run({})


def test_the_workflow_reads_what_a_night_writes() -> None:
    paths, asked = RunPaths("gs://my-bucket/dotbias", "2026-11-24"), []

    def answer(request: Request) -> tuple[int, Any]:
        address = urlsplit(request[1])
        if address.netloc == "storage.googleapis.com":
            asked.append("gs://my-bucket/" + unquote(address.path.rpartition("/")[2]))
        return cloud(request)

    cloud = Cloud()
    Workflow(SCHEDULE, ENVIRONMENT, "2026-11-24T01:30:00Z", answer).run({})
    assert asked == [f"{paths.dataset}/{MANIFEST_NAME}", paths.decision]
