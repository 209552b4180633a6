"""Runs the examples in docstrings, and checks how docstrings begin."""

from __future__ import annotations

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = ("dotbias", "pipeline", "trainer")
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("module", MODULES)
def test_examples(module: str) -> None:
    found = [test for test in doctest.DocTestFinder().find(importlib.import_module(module), module) if test.examples]
    assert found
    for test in found:
        output: list[str] = []
        result = doctest.DocTestRunner().run(test, out=output.append)
        assert result.failed == 0, "".join(output)


def test_modules_that_people_import_have_examples() -> None:
    assert {
        "dotbias.cli.configuration.yaml_files",
        "dotbias.evaluation.measure.metrics",
        "pipeline.config",
        "pipeline.manifest",
        "trainer.loop.defaults",
    } <= set(MODULES)


# Words that begin a title or a riddle, not a sentence that says what a thing does.
_NO_SENTENCE = {"Of", "What", "How", "Whether", "Which", "Where", "So"}
_NO_VERB = {"A", "An", "The", "One", "Some", "Several", "All"}


@pytest.mark.parametrize("top", ["pipeline", "trainer", "dotbias", "benchmarks", "docs", "examples", "deploy", "tests"])
def test_docstrings_begin_with_a_verb(top: str) -> None:
    """In tests/, a docstring may also be a sentence about what is tested, such as "The order depends on the seed"."""
    forbidden = _NO_SENTENCE if top == "tests" else _NO_SENTENCE | _NO_VERB
    for path in sorted((ROOT / top).rglob("*.py")):
        for line, text in _docstrings(ast.parse(path.read_text())):
            assert text.split()[0].rstrip(",.:") not in forbidden, f"{path.relative_to(ROOT)}:{line}: {text}"


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield node.body[0].lineno, text.splitlines()[0]
