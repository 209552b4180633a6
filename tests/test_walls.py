"""Imports point one way, and the light modules stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BEAM = {"apache_beam", "tensorflow_transform", "tfx_bsl"}
TENSORFLOW = {"tensorflow", "tf_keras", "keras", "tensorflow_recommenders"}


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        # A TPU host has none of these: its TensorFlow is older than TensorFlow Transform accepts.
        ("trainer.train", BEAM),
        # On the way to `--help` and to every message about a mistake.
        ("run_pipeline", BEAM | TENSORFLOW),
        ("dotbias.cli.stages.all", BEAM | TENSORFLOW),
        ("pipeline.manifest", BEAM | TENSORFLOW),
        ("pipeline.config", BEAM | TENSORFLOW),
        ("trainer.config", BEAM | TENSORFLOW),
        # What others read, such as a report, costs nothing to import.
        ("dotbias.evaluation.results", BEAM | TENSORFLOW),
        ("dotbias.evaluation.encodings.comparison", BEAM | TENSORFLOW),
        # The configuration names what a comparison tries.
        ("dotbias.evaluation.encodings.variants", BEAM | TENSORFLOW),
        # Arrays are measured without a model.
        ("dotbias.evaluation.measure.bootstrap", BEAM | TENSORFLOW),
        # The evaluation reads new files as the job does.
        ("pipeline.input.ranges", BEAM | TENSORFLOW),
        # The sample can be generated without either.
        ("pipeline.sample", BEAM | TENSORFLOW),
    ],
)
def test_a_fresh_interpreter_does_not_load(module: str, forbidden: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted({forbidden!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# The wiring may know the parts, and no part knows the wiring or another package's parts.
_LIGHT = {"pipeline.config", "pipeline.manifest"}
_PACKAGES = ("dotbias", "pipeline", "trainer")
_FOLDERS = sorted(
    path.parent.relative_to(ROOT) for package in _PACKAGES for path in (ROOT / package).glob("**/__init__.py")
)


def test_the_pipeline_never_imports_the_trainer_or_the_command() -> None:
    for module, imported in _project_imports("pipeline"):
        assert imported.startswith("pipeline"), f"{module} imports {imported}"


def test_the_trainer_imports_the_manifest_alone() -> None:
    for module, imported in _project_imports("trainer"):
        assert imported.startswith("trainer") or imported == "pipeline.manifest", f"{module} imports {imported}"


def test_no_part_of_dotbias_imports_the_command() -> None:
    for module, imported in _project_imports("dotbias"):
        if not module.startswith("dotbias.cli"):
            assert not imported.startswith("dotbias.cli"), f"{module} imports {imported}"


def test_only_the_wiring_imports_the_parts_of_the_pipeline() -> None:
    for module, imported in _project_imports("pipeline"):
        if imported == "pipeline.preprocess":
            raise AssertionError(f"{module} imports {imported}")
        if module in _LIGHT:
            assert imported in {*_LIGHT, "pipeline"}, f"{module} imports {imported}"


@pytest.mark.parametrize("folder", _FOLDERS, ids=str)
def test_no_import_goes_in_a_circle(folder: Path) -> None:
    """In each folder, its modules and its folders, each folder taken as one, import each other in one direction."""
    prefix = ".".join(folder.parts) + "."
    edges: dict[str, set[str]] = {}
    for module, imported in _project_imports(folder.parts[0]):
        if module.startswith(prefix) and imported.startswith(prefix):
            one, other = (name.removeprefix(prefix).split(".")[0] for name in (module, imported))
            if one != other:
                edges.setdefault(one, set()).add(other)

    def reach(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        for imported in edges.get(module, ()):
            reach(imported, (*path, module))

    for module in edges:
        reach(module, ())


@pytest.mark.parametrize("folder", _FOLDERS, ids=str)
def test_no_folder_has_more_than_a_dozen_modules(folder: Path) -> None:
    modules = [path for path in (ROOT / folder).glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= 12, [path.name for path in modules]


@pytest.mark.parametrize("package", _PACKAGES)
def test_no_module_holds_more_than_one_thing(package: str) -> None:
    for path in (ROOT / package).glob("**/*.py"):
        assert len(path.read_text().splitlines()) <= 400, path


def test_an_import_of_a_module_by_its_name_is_seen() -> None:
    def seen(code: str) -> list[str]:
        return _modules(ast.parse(code).body[0])

    assert seen("from pipeline.storage import files") == ["pipeline.storage.files"]
    assert seen("from pipeline.storage.files import open_file") == ["pipeline.storage.files"]
    assert seen("from pipeline import storage") == ["pipeline.storage"]
    assert seen("import pipeline.manifest") == ["pipeline.manifest"]


def _project_imports(package: str) -> Iterator[tuple[str, str]]:
    """(module, module of this project that it imports), wherever in the module the import stands."""
    for path in sorted((ROOT / package).glob("**/*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text())):
            for imported in _modules(node):
                if imported.split(".")[0] in (*_PACKAGES, "run_pipeline"):
                    yield module, imported


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide where a module belongs"
        # `from pipeline.storage import files` imports pipeline.storage.files, if that is a module or a folder.
        name = node.module or ""
        return [_module_named(name, alias.name) for alias in node.names]
    return []


def _module_named(name: str, member: str) -> str:
    path = ROOT.joinpath(*name.split("."), member)
    return f"{name}.{member}" if path.is_dir() or path.with_suffix(".py").exists() else name
