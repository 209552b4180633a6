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
        # A start that finds its work done asks these.
        ("trainer.finished", BEAM | TENSORFLOW),
        ("dotbias.evaluation.stored", BEAM | TENSORFLOW),
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


# Modules that both packages and the command read without heavy imports.
_LIGHT = {"pipeline.config", "pipeline.manifest"}
_PACKAGES = ("dotbias", "pipeline", "trainer")
_FOLDERS = sorted(
    path.parent.relative_to(ROOT) for package in _PACKAGES for path in (ROOT / package).glob("**/__init__.py")
)


def test_the_pipeline_imports_no_other_package() -> None:
    for module, imported in _project_imports("pipeline"):
        assert imported.startswith("pipeline"), f"{module} imports {imported}"


def test_the_trainer_imports_only_the_manifest_of_the_pipeline() -> None:
    for module, imported in _project_imports("trainer"):
        assert imported.startswith("trainer") or imported == "pipeline.manifest", f"{module} imports {imported}"


def test_the_rest_of_dotbias_does_not_import_the_command() -> None:
    for module, imported in _project_imports("dotbias"):
        if not module.startswith("dotbias.cli"):
            assert not imported.startswith("dotbias.cli"), f"{module} imports {imported}"


def test_the_light_modules_of_the_pipeline_import_no_others() -> None:
    for module, imported in _project_imports("pipeline"):
        if module in _LIGHT:
            assert imported in {*_LIGHT, "pipeline"}, f"{module} imports {imported}"


@pytest.mark.parametrize("folder", _FOLDERS, ids=str)
def test_modules_and_subfolders_of_a_folder_have_no_import_cycle(folder: Path) -> None:
    assert _cycle(folder, ROOT) is None


def test_modules_have_no_import_cycle() -> None:
    edges: dict[str, set[str]] = {}
    for package in _PACKAGES:
        for module, imported in _project_imports(package):
            if module != imported:
                edges.setdefault(module, set()).add(imported)
    assert _find_cycle(edges) is None


@pytest.mark.parametrize(
    ("module", "line", "folder", "cycle"),
    [
        # An arrow upward: from a subfolder to a module that imports the subfolder.
        ("trainer/data/reader.py", "from trainer.train import train", "trainer", ["build", "data", "train"]),
        # A member that is a module, imported inside a function.
        ("pipeline/storage/files.py", "def f():\n    from pipeline import input", "pipeline", ["input", "storage"]),
        ("dotbias/evaluation/rows.py", "import dotbias.evaluation.verdict", "dotbias/evaluation", None),
        (
            "dotbias/evaluation/formats.py",
            "import dotbias.evaluation.verdict",
            "dotbias/evaluation",
            ["formats", "verdict"],
        ),
        # The registry imports the stages by name.
        ("dotbias/cli/steps/prepare.py", "import dotbias.cli.registry", "dotbias/cli", ["registry", "stages", "steps"]),
    ],
)
def test_an_import_that_is_added_makes_a_cycle(
    tmp_path: Path, module: str, line: str, folder: str, cycle: list[str] | None
) -> None:
    for path in (path for package in _PACKAGES for path in (ROOT / package).glob("**/*.py")):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    (tmp_path / module).write_text((tmp_path / module).read_text() + f"\n\n{line}\n")
    found = _cycle(Path(folder), tmp_path)
    assert (found and sorted(set(found))) == cycle


@pytest.mark.parametrize("top", [*_PACKAGES, "benchmarks", "tests"])
def test_no_folder_has_more_than_a_dozen_modules(top: str) -> None:
    for folder in (ROOT / top, *(path for path in (ROOT / top).glob("**/") if path.name != "__pycache__")):
        # In tests/, helpers and fixtures do not count.
        pattern = "test_*.py" if top == "tests" else "*.py"
        modules = [path.name for path in folder.glob(pattern) if path.name != "__init__.py"]
        assert len(modules) <= 12, (folder, modules)


@pytest.mark.parametrize("package", _PACKAGES)
def test_no_module_has_more_than_400_lines(package: str) -> None:
    for path in (ROOT / package).glob("**/*.py"):
        assert len(path.read_text().splitlines()) <= 400, path


def test_imports_are_read_from_all_their_forms() -> None:
    def seen(code: str) -> list[str]:
        return [module for node in ast.walk(ast.parse(code)) for module in _modules(node, ROOT)]

    assert seen("from pipeline.storage import files") == ["pipeline.storage.files"]
    assert seen("from pipeline.storage.files import open_file") == ["pipeline.storage.files"]
    assert seen("from pipeline import storage") == ["pipeline.storage"]
    assert seen("import pipeline.manifest") == ["pipeline.manifest"]
    assert seen('import_module(f"dotbias.cli.stages.{name}")') == ["dotbias.cli.stages"]


def _cycle(folder: Path, root: Path) -> list[str] | None:
    """Returns a cycle among the modules and subfolders of a folder, each subfolder taken as one; None without one."""
    prefix = ".".join(folder.parts) + "."
    edges: dict[str, set[str]] = {}
    for module, imported in _project_imports(folder.parts[0], root):
        if module.startswith(prefix) and imported.startswith(prefix):
            one, other = (name.removeprefix(prefix).split(".")[0] for name in (module, imported))
            if one != other:
                edges.setdefault(one, set()).add(other)
    return _find_cycle(edges)


def _find_cycle(edges: dict[str, set[str]]) -> list[str] | None:
    done: set[str] = set()

    def search(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return None
        for imported in sorted(edges.get(module, ())):
            if cycle := search(imported, [*path, module]):
                return cycle
        done.add(module)
        return None

    return next((cycle for module in sorted(edges) if (cycle := search(module, []))), None)


def _project_imports(package: str, root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Yields (module, module of this project that it imports), also for imports inside of functions."""
    for path in sorted((root / package).glob("**/*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text())):
            for imported in _modules(node, root):
                if imported.split(".")[0] in (*_PACKAGES, "run_pipeline"):
                    yield module, imported


def _modules(node: ast.AST, root: Path) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide where a module belongs"
        # `from pipeline.storage import files` imports pipeline.storage.files, if that is a module or a folder.
        name = node.module or ""
        return [_module_named(name, alias.name, root) for alias in node.names]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "import_module":
        # Of a name that is put together, such as f"dotbias.cli.stages.{name}", the constant beginning is known.
        argument = node.args[0]
        start = argument.values[0] if isinstance(argument, ast.JoinedStr) else argument
        assert isinstance(start, ast.Constant) and isinstance(start.value, str), ast.unparse(node)
        return [start.value.rstrip(".")]
    return []


def _module_named(name: str, member: str, root: Path) -> str:
    path = root.joinpath(*name.split("."), member)
    return f"{name}.{member}" if path.is_dir() or path.with_suffix(".py").exists() else name
