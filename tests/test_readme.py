"""The README says what the code does: every key with its default, every command with flags that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pydantic import BaseModel

from dotbias.cli.arguments import own_flags
from dotbias.cli.configuration.load import Configuration
from dotbias.cli.configuration.validation_errors import fields_of, known_paths

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()

REQUIRED = "required"


def test_every_key_stands_in_the_reference_with_its_default() -> None:
    rows = re.findall(
        r"^\| `((?:pipeline|trainer|sample|compare)\.[\w.<>]+)` \| .*? \| `?(.*?)`? \|", README, re.MULTILINE
    )
    documented = {tuple(key.split(".")): default for key, default in rows}
    assert len(documented) == len(rows)
    assert documented == _defaults()


def _defaults() -> dict[tuple[str, ...], str]:
    """By key, the default as YAML (which JSON is) writes it; sections are not keys."""
    sections = {path[:-1] for path in known_paths(Configuration)} | {path[:-2] for path in known_paths(Configuration)}
    found = {}
    for path, field in fields_of(Configuration):
        if path not in sections:
            default = field.get_default(call_default_factory=True)
            assert not isinstance(default, BaseModel)
            found[path] = REQUIRED if field.is_required() else json.dumps(default)
    return found


def test_our_own_flags_in_the_readme_exist() -> None:
    beams = {
        "--runner",
        "--project",
        "--region",
        "--temp_location",
        "--setup_file",
        "--sdk_container_image",
        "--direct_running_mode",
        "--direct_num_workers",
    }
    assert set(re.findall(r"(?<![\w-])--[a-z_]+", README)) <= {*own_flags(), *beams}


def test_files_in_the_readme_exist() -> None:
    for name in set(re.findall(r"configs/\w+\.yaml|\b[A-Z]+\.md\b", README)) - {"configs/mine.yaml"}:
        assert (ROOT / name).is_file(), name
