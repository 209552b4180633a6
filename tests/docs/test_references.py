"""Checks that what the prose names exists: modules, names in them, files, flags, make targets, tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from dotbias.cli.configuration.load import Configuration
from dotbias.cli.configuration.validation_errors import known_paths
from dotbias.cli.registry import STAGE_NAMES, own_flags

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

# Keys and sections of the configuration, which look like modules.
KEYS = {".".join(path[:length]) for path in known_paths(Configuration) for length in range(2, len(path) + 1)}

BEAM_FLAGS = {
    "--runner",
    "--project",
    "--region",
    "--temp_location",
    "--setup_file",
    "--sdk_container_image",
    "--direct_running_mode",
    "--direct_num_workers",
    "--job_name",
    "--no_wait_until_finish",
    "--dry_run",
    "--machine_type",
    "--max_num_workers",
    "--service_account_email",
    "--subnetwork",
    "--labels",
    "--experiments",
}
# Written by a run, or by the reader.
NOT_OURS = re.compile(r"^(configs/mine\.yaml|out/|gs:|logs/|config/)")


# The changelog also names what is gone.
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_modules_and_their_names_exist(page: Path) -> None:
    for dotted in re.findall(r"(?<![/\w-])(?:pipeline|trainer|dotbias)(?:\.\w+)+", page.read_text()):
        assert dotted in KEYS or _exists(dotted), f"{page.name}: {dotted}"


@PAGE
def test_files_exist(page: Path) -> None:
    folders = "benchmarks|configs|deploy|docs|dotbias|examples|pipeline|tests|trainer"
    text = page.read_text()
    named = re.findall(rf"(?<![\w/.<>-])(?:{folders})/[\w/.]*\w\.(?:py|md|yaml|sh|json|txt|ipynb|png)\b", text)
    named += re.findall(r"(?<![\w/])(?:[A-Z]+\.md|Makefile|setup\.py|run_pipeline\.py|mkdocs\.yml)\b", text)
    for name in named:
        assert NOT_OURS.match(name) or (ROOT / name).exists(), f"{page.name}: {name}"


@PAGE
def test_links_work_in_the_repository(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)[)#]", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


@PAGE
def test_flags_of_the_command_exist(page: Path) -> None:
    for command in _commands(page.read_text(), r"(?:python run_pipeline\.py|(?:^|`)dotbias) "):
        for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", command):
            assert flag in {*own_flags(), *BEAM_FLAGS}, f"{page.name}: {flag}"


def _commands(text: str, start: str) -> Iterator[str]:
    """Yields the commands in code blocks and in backticks, each with its continuation lines."""
    joined = text.replace("\\\n", " ")
    yield from re.findall(rf"{start}[^`\n]*", joined, re.MULTILINE)


@PAGE
def test_flags_of_programs_exist(page: Path) -> None:
    """The flags of `python benchmarks/x.py` and `python -m module` occur in the program's text."""
    for script, flags in re.findall(r"python (?:-m )?([\w./]+)([^`\n]*)", page.read_text().replace("\\\n", " ")):
        # The flags of the standard library's programs are not ours.
        if script in ("run_pipeline.py", "http.server"):
            continue
        path = ROOT / (script if script.endswith(".py") else script.replace(".", "/") + ".py")
        path = path if path.is_file() else path.with_suffix("") / "generator.py"
        for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", flags):
            assert f'"{flag}"' in path.read_text() or flag == "--help", f"{page.name}: {script} {flag}"


@PAGE
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE):
        assert target in targets, f"{page.name}: make {target}"


def test_the_table_of_stages_has_all_stages() -> None:
    section = (ROOT / "docs" / "own_data.md").read_text().partition("## Stages")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == sorted(STAGE_NAMES)


def test_the_names_of_the_python_api_exist() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    named = re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE)
    assert len(named) > 25
    for dotted in named:
        module, _, name = dotted.rpartition(".")
        assert name in _names(module), dotted


def _exists(dotted: str) -> bool:
    """Returns whether it is a module, a name in one, or an attribute of a class in one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        names = _names(".".join(parts[:length]))
        if names is not None:
            return length == len(parts) or (parts[length] in names and len(parts) - length <= 2)
    return False


@cache
def _names(module: str) -> frozenset[str] | None:
    """Returns the names that a module defines or imports, without importing it; None if there is no such module."""
    path = ROOT / module.replace(".", "/")
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return frozenset(_defined(ast.parse(file.read_text()).body))
    return None


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.ImportFrom | ast.Import):
            yield from (alias.asname or alias.name for alias in node.names)
