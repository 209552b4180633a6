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
        ("command.stages", BEAM | TENSORFLOW),
        ("pipeline.manifest", BEAM | TENSORFLOW),
        ("pipeline.config", BEAM | TENSORFLOW),
        ("trainer.config", BEAM | TENSORFLOW),
        # What others read, such as a report, costs nothing to import.
        ("evaluation.results", BEAM | TENSORFLOW),
        ("evaluation.comparison", BEAM | TENSORFLOW),
        # The configuration names what a comparison tries.
        ("evaluation.variants", BEAM | TENSORFLOW),
        # Arrays are measured without a model.
        ("evaluation.bootstrap", BEAM | TENSORFLOW),
        # The evaluation reads new files as the job does.
        ("pipeline.stretches", BEAM | TENSORFLOW),
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
_PACKAGES = ("command", "evaluation", "pipeline", "trainer")


def test_the_pipeline_never_imports_the_trainer_or_the_command() -> None:
    for module, imported in _project_imports("pipeline"):
        assert imported.startswith("pipeline"), f"{module} imports {imported}"


def test_the_trainer_imports_the_manifest_alone() -> None:
    for module, imported in _project_imports("trainer"):
        assert imported.startswith("trainer") or imported == "pipeline.manifest", f"{module} imports {imported}"


def test_the_evaluation_imports_both_and_never_the_command() -> None:
    for module, imported in _project_imports("evaluation"):
        assert imported.split(".")[0] in ("evaluation", "pipeline", "trainer"), f"{module} imports {imported}"


def test_only_the_wiring_imports_the_parts_of_the_pipeline() -> None:
    """`preprocess -> {sources, splits, vocabulary, encoding, shards} -> {config, manifest, ...}`."""
    for module, imported in _project_imports("pipeline"):
        if imported == "pipeline.preprocess":
            raise AssertionError(f"{module} imports {imported}")
        if module in _LIGHT:
            assert imported in _LIGHT, f"{module} imports {imported}"


@pytest.mark.parametrize("package", _PACKAGES)
def test_no_import_goes_in_a_circle(package: str) -> None:
    edges: dict[str, set[str]] = {}
    for module, imported in _project_imports(package):
        edges.setdefault(module, set()).add(imported)

    def reach(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        for imported in edges.get(module, ()):
            reach(imported, (*path, module))

    for module in edges:
        reach(module, ())


@pytest.mark.parametrize("package", _PACKAGES)
def test_no_module_holds_more_than_one_thing(package: str) -> None:
    for path in (ROOT / package).glob("**/*.py"):
        assert len(path.read_text().splitlines()) <= 400, path


def _project_imports(package: str) -> Iterator[tuple[str, str]]:
    """(module, module of this project that it imports), wherever in the module the import stands."""
    for path in sorted((ROOT / package).glob("**/*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            for imported in _modules(node):
                if imported.split(".")[0] in (*_PACKAGES, "run_pipeline"):
                    yield module, imported


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide where a module belongs"
        # `from pipeline import config` imports pipeline.config.
        name = node.module or ""
        return [f"{name}.{alias.name}" if name in _PACKAGES else name for alias in node.names]
    return []
