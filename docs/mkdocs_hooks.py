"""Makes pages of files outside docs/, and points links at them; hooks of MkDocs.

A link that works in the repository, such as `docs/scale.md` in README.md or `../ARCHITECTURE.md` in a page, works in
the site too.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]

# Path in the repository -> path in the site.
OUTSIDE = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.txt",
    "examples/tutorial.ipynb": "tutorial.md",
}

_LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files from outside docs/."""
    for source, target in OUTSIDE.items():
        text = (ROOT / source).read_text()
        content = notebook_as_markdown(text) if source.endswith(".ipynb") else text
        files.append(File.generated(config, target, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrites links between files of the repository into links between pages."""
    sources = {target: source for source, target in OUTSIDE.items()}
    path = page.file.src_uri
    return rewrite_links(markdown, sources.get(path, f"docs/{path}"))


def rewrite_links(markdown: str, source: str) -> str:
    """Points the relative links of `source`, a path in the repository, at the site.

    A link to a file that the site does not have stays as it is, so that the strict build refuses it.
    """

    def target(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        return OUTSIDE.get(path, path.removeprefix("docs/"))

    return _LINK.sub(target, markdown)


def notebook_as_markdown(text: str) -> str:
    """Converts a notebook with its stored text outputs."""
    blocks = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            blocks.append(source)
            continue
        blocks.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            shown = output["text"] if output["output_type"] == "stream" else output["data"]["text/plain"]
            blocks.append(f"```text\n{''.join(shown).rstrip()}\n```")
    return "\n\n".join(blocks) + "\n"
