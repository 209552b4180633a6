"""docs/coverage.md names tests that exist, and says of each whether it is slow."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = [line for line in (ROOT / "docs" / "coverage.md").read_text().splitlines() if "::" in line]


def test_there_is_something_to_check() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rpartition("::")[2].rstrip("` |"))
def test_the_test_of_a_row_exists(row: str) -> None:
    (named,) = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
    path, name = named
    tree = ast.parse((ROOT / path).read_text())
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    assert found, row
    marks = [ast.unparse(decorator) for decorator in found[0].decorator_list]
    marks += [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign)]
    slow = any(mark in ("pytest.mark.slow", "pytestmark = pytest.mark.slow") for mark in marks)
    assert slow == ("*slow*" in row), row
