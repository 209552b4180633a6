"""Tests reading and replacing `champion.json`."""

from __future__ import annotations

from pathlib import Path

import pytest

from dotbias.retraining.champion import Champion, Throne, successor
from pipeline.manifest import DotbiasError


def test_only_one_of_two_that_saw_the_same_champion_replaces_it(tmp_path: Path) -> None:
    one, other = Throne(str(tmp_path)), Throne(str(tmp_path))
    (_, seen_by_one), (_, seen_by_other) = one.read(), other.read()
    first = successor(None, "2026-11-23", 2026112300, "runs/2026-11-23/decision.json")
    assert one.replace(seen_by_one, first)
    assert not other.replace(seen_by_other, successor(None, "2026-11-24", 2026112400, "x"))
    assert other.read()[0] == first


def test_a_predecessor_keeps_no_predecessor_and_no_pin() -> None:
    first = Champion(run_id="a", version=1, decided_by="x", pinned=True)
    second = successor(first, "b", 2, "y")
    third = successor(second, "c", 3, "z")
    assert third.previous == Champion(run_id="b", version=2, decided_by="y")
    assert not second.pinned
    assert second.previous is not None
    assert not second.previous.pinned


@pytest.mark.parametrize("text", ["{", "{}", '{"run_id": "a", "version": "x", "decided_by": ""}'])
def test_a_file_that_cannot_be_read_is_an_error_and_stays(tmp_path: Path, text: str) -> None:
    (tmp_path / "champion.json").write_text(text)
    with pytest.raises(DotbiasError, match=r"champion\.json: .*Restore the file"):
        Throne(str(tmp_path)).read()
    assert (tmp_path / "champion.json").read_text() == text
