"""Checks that docs/make_screenshot.py made the stored picture of the report, and makes another one."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from dotbias.evaluation.report.run_page import run_page
from tests.dotbias.evaluation.contents import contents

ROOT = Path(__file__).resolve().parents[2]


def _program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_screenshot", ROOT / "docs" / "make_screenshot.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _size_and_colours(path: Path) -> tuple[tuple[int, int], int]:
    with Image.open(path) as picture:
        return picture.size, len(picture.convert("RGB").getcolors(1 << 24) or ())


def test_the_stored_picture_is_one_of_this_program() -> None:
    program = _program()
    size, colours = _size_and_colours(ROOT / "docs" / "images" / "report.png")
    assert size == (program.WIDTH, program.HEIGHT)
    assert colours > 100


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")), reason="needs chromium and chromedriver"
)
def test_a_page_becomes_a_picture(tmp_path: Path) -> None:
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text(run_page(contents()))
    _program().screenshot(page, picture, width=640, height=480)
    size, colours = _size_and_colours(picture)
    assert size == (640, 480)
    # An empty page has one colour.
    assert colours > 100
