"""Builds the docs site without a warning, and checks that it needs no network and has all pages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _build(root: Path, target: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)],
        cwd=root,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the site with warnings as errors: broken links, unknown anchors, pages that no menu names."""
    target = tmp_path_factory.mktemp("docs") / "site"
    done = _build(ROOT, target)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return target


class _Assets(HTMLParser):
    """Collects what a browser loads for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("script", "img", "iframe") and values.get("src"):
            self.found.append(str(values["src"]))
        if tag == "link" and values.get("rel") in ("stylesheet", "preconnect", "icon", "preload"):
            self.found.append(str(values["href"]))


def test_every_page_is_there(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    outside = {"index", "architecture", "contributing", "changelog", "tutorial"}
    assert {path.stem for path in site.glob("*.html")} >= pages | outside


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assets = _Assets()
        assets.feed(page.read_text())
        assert assets.found, page
        for asset in assets.found:
            assert not re.match(r"(https?:)?//", asset), f"{page.name} loads {asset}"
            if page.name != "404.html":
                assert (page.parent / asset).is_file(), f"{page.name} loads {asset}"


def test_links_between_files_of_the_repository_become_links_between_pages(site: Path) -> None:
    home = (site / "index.html").read_text()
    assert 'href="scale.html"' in home
    assert 'href="tutorial.html"' in home
    assert 'src="images/report.png"' in home
    assert "nearest to Western" in (site / "tutorial.html").read_text()


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    """The strict build also checks the links of pages from outside docs/."""
    for path in ROOT.iterdir():
        if path.name in ("docs", "examples", "mkdocs.yml", "LICENSE") or path.suffix == ".md":
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "CHANGELOG.md").unlink()
    (tmp_path / "CHANGELOG.md").write_text("[gone](docs/gone.md) and [an anchor](docs/scale.md#gone)\n")
    (tmp_path / "docs").unlink()
    (tmp_path / "docs").mkdir()
    for path in (ROOT / "docs").iterdir():
        if path.name == "mkdocs_hooks.py":
            (tmp_path / "docs" / "mkdocs_hooks.py").write_text(path.read_text())
        elif path.name != "__pycache__":
            (tmp_path / "docs" / path.name).symlink_to(path)
    done = _build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "gone.md" in done.stderr
    assert "#gone" in done.stderr
