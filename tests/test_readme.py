"""Checks that the flags and files that the README names exist."""

from __future__ import annotations

import re
from pathlib import Path

from dotbias.cli.arguments import own_flags

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


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
