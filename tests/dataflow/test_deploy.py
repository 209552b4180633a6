"""Checks that the files of deploy/ and their page agree with the code. No image is built, no cloud is used."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from dotbias.cli.arguments import parse_arguments
from dotbias.cli.beam.flags import beam_arguments
from dotbias.cli.failures import UsageError
from dotbias.cli.registry import own_flags
from tests.dataflow.command import ROOT
from tests.dataflow.image import instructions

DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs" / "dataflow.md").read_text()


def locked_version(package: str, python: str) -> str:
    for line in (DEPLOY / "worker-requirements.txt").read_text().splitlines():
        if line.startswith(f"{package}=="):
            requirement = Requirement(line.rstrip(" \\"))
            machine = {"python_full_version": f"{python}.1", "sys_platform": "linux", "platform_machine": "x86_64"}
            if requirement.marker is None or requirement.marker.evaluate(machine):
                return str(requirement.specifier).removeprefix("==")
    raise AssertionError(package)


def test_the_image_has_one_python_and_the_locked_beam() -> None:
    (base,) = {rest.split()[0] for keyword, rest in instructions() if keyword == "FROM"}
    python = base.removeprefix("python:").removesuffix("-slim")
    sources = [rest for keyword, rest in instructions() if keyword == "COPY" and "/" in rest.split()[0]]
    assert sources[0].split()[0] == f"--from=apache/beam_python{python}_sdk:{locked_version('apache-beam', python)}"
    assert f"python{python.replace('.', '')}-template-launcher-base" in sources[1]


def test_the_builder_gets_what_git_keeps() -> None:
    """The builder ignores exactly what git ignores; a list of wanted files could miss one."""
    left_out = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()[1:]
    names = {line.removeprefix("**/").removesuffix("/") for line in left_out}
    ignored = {line.removesuffix("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    assert names == {".git", ".*_cache", *(name for name in ignored if not name.endswith("_cache"))}


def test_the_image_starts_what_dataflow_starts() -> None:
    assert ("ENTRYPOINT", '["/opt/apache/beam/boot"]') in instructions()
    environment = dict(rest.split("=") for keyword, rest in instructions() if keyword == "ENV")
    assert environment == {"FLEX_TEMPLATE_PYTHON_PY_FILE": "/template/run_pipeline.py"}
    assert ("WORKDIR", "/template") in instructions()


def test_the_build_uses_the_dockerfile() -> None:
    build = yaml.safe_load((DEPLOY / "cloudbuild.yaml").read_text())
    (step,) = build["steps"]
    assert step["args"][:3] == ["build", "--file", "deploy/Dockerfile"]
    assert build["images"] == ["${_IMAGE}"]


@pytest.fixture(scope="module")
def parameters() -> dict[str, dict[str, Any]]:
    metadata = json.loads((DEPLOY / "flex_template.json").read_text())
    assert metadata.keys() == {"name", "description", "parameters"}
    return {parameter["name"]: parameter for parameter in metadata["parameters"]}


VALUES = {
    "config": "gs://bucket/config/retrain.yaml",
    "input": "gs://bucket/logs/*",
    "output_root": "gs://bucket/dotbias",
    "stage": "preprocess",
    "date": "2026-11-24",
    "only": "preprocess",
    "run_id": "2026-11-24",
    "set": "pipeline.window={until: 2026-11-24}",
    "sdk_container_image": "europe-west1-docker.pkg.dev/my-project/dotbias/dotbias:1",
}


STAGES = ("preprocess", "retrain")


def test_the_parameters_of_the_template_are_flags(
    parameters: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher passes the parameters as `--name=value`, after its own flags."""
    for name, parameter in parameters.items():
        assert {"name", "label", "helpText", "regexes"} <= parameter.keys()
        (rule,) = parameter["regexes"]
        assert re.fullmatch(rule, VALUES[name])
    launchers = [
        "--runner=DataflowRunner",
        "--project=my-project",
        "--region=europe-west1",
        "--job_name=dotbias-2026-11-24",
        "--temp_location=gs://bucket/tmp",
        "--staging_location=gs://bucket/staging",
        "--template_location=gs://bucket/staging/template_launches/1/job_object",
        "--service_account_email=dotbias-worker@my-project.iam.gserviceaccount.com",
        "--num_workers=2",
        "--max_num_workers=20",
        "--machine_type=n2-standard-4",
        "--labels={}",
        "--experiments=use_runner_v2",
    ]
    for name in STAGES:
        assert re.fullmatch(parameters["stage"]["regexes"][0], name)
    of_night = {**VALUES, "stage": "retrain"}
    night = parse_arguments([*launchers, *(f"--{name}={of_night[name]}" for name in parameters if name != "run_id")])
    assert (night.stage, night.own) == ("retrain", {"date": "2026-11-24", "only": "preprocess"})
    run = [f"--{name}={VALUES[name]}" for name in parameters if name not in ("date", "only")]
    arguments = parse_arguments([*launchers, *run])
    assert (arguments.stage, arguments.run_id) == ("preprocess", "2026-11-24")
    assert (arguments.input, arguments.overrides) == ((VALUES["input"],), (VALUES["set"],))
    monkeypatch.setattr("dotbias.cli.beam.dataflow._check_credentials", lambda values: None)
    assert f"--sdk_container_image={VALUES['sdk_container_image']}" in beam_arguments(
        arguments.runner, arguments.beam, arguments.run_id
    )
    with pytest.raises(UsageError):
        beam_arguments(arguments.runner, (*arguments.beam, "--no_such_flag"), arguments.run_id)


def test_the_workflow_gives_the_parameters(parameters: dict[str, dict[str, Any]]) -> None:
    steps = yaml.safe_load((DEPLOY / "schedule.yaml").read_text())["main"]["steps"]
    (launch,) = (step["launch"]["args"]["body"]["launchParameter"] for step in steps if "launch" in step)
    required = {name for name, parameter in parameters.items() if not parameter.get("isOptional")}
    assert required <= launch["parameters"].keys() <= parameters.keys()
    for name, value in launch["parameters"].items():
        if not value.startswith("${"):
            assert re.fullmatch(parameters[name]["regexes"][0], value)


def test_the_image_can_do_a_whole_night() -> None:
    """The image has the packages for training and evaluation too, in the versions of the lock."""

    def pins(path: Path) -> set[tuple[str, str]]:
        lines = (line.rstrip(" \\") for line in path.read_text().splitlines() if line[:1].isalnum())
        return {(one.name, str(one.specifier)) for one in map(Requirement, lines)}

    image = pins(DEPLOY / "image-requirements.txt")
    assert pins(DEPLOY / "worker-requirements.txt") <= image <= pins(ROOT / "requirements.lock")
    names = {name for name, _ in image}
    assert {"apache-beam", "tensorflow-recommenders", "tensorboard", "markupsafe", "plotly", "scikit-learn"} <= names
    assert not {"pytest", "polars", "mkdocs-material"} & names
    copied = [rest for keyword, rest in instructions() if keyword == "COPY"]
    assert "deploy/image-requirements.txt ./" in copied


@pytest.mark.parametrize(("page", "count"), [("dataflow", 6), ("scheduling", 12)])
def test_the_commands_of_a_page_are_ones(page: str, count: int) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text(), re.DOTALL)
    assert len(blocks) == count
    for block in blocks:
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_the_flags_and_files_of_the_page_exist() -> None:
    from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser

    parser = _BeamArgumentParser(add_help=False)
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)
    beams = {flag for action in parser._actions for flag in action.option_strings}
    # gcloud's flags have dashes in them; ours and Beam's have underscores, or are one word.
    python = "\n".join(re.findall(r"python run_pipeline\.py(?:.*\\\n)*.*", PAGE))
    named = set(re.findall(r"--\w+_\w+", PAGE)) | set(re.findall(r"(?<![\w-])--\w+", python))
    assert named <= {*own_flags(), *beams}
    for path in re.findall(r"\bdeploy/[\w.-]+", PAGE):
        assert (ROOT / path).is_file(), path
