"""Reads deploy/Dockerfile."""

from __future__ import annotations

import re

from tests.dataflow.command import ROOT


def instructions() -> list[tuple[str, str]]:
    """Returns (keyword, rest) of each instruction, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "deploy" / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(keyword, rest.strip()) for keyword, _, rest in (line.partition(" ") for line in lines if line.strip())]
