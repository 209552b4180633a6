"""Tests versions in `serving/`, rollback and pin."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from dotbias.retraining.champion import Champion, Throne
from dotbias.retraining.serving import (
    pin,
    publish,
    published_versions,
    roll_back,
    version_after,
    version_of,
)
from pipeline.manifest import DotbiasError
from tests.dotbias.retraining.nights import decision, enthrone, write_decision
from tests.trainer.conftest import SIDES, random_rows
from tests.trainer.datasets import write_dataset

RUN, PREVIOUS = "2026-11-03", "2026-11-02"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Makes two champions, one after the other, with a dataset and files that look like an export."""
    for run in (PREVIOUS, RUN):
        write_decision(tmp_path, decision(run))
        rows, eval_rows = random_rows(50, 1, string_ids=True), random_rows(10, 2, string_ids=True)
        write_dataset(tmp_path / "runs" / run / "dataset", rows, eval_rows, SIDES)
        export = tmp_path / "runs" / run / "model" / "export"
        export.mkdir(parents=True)
        (export / "saved_model.pb").write_text(run)
    previous = Champion(run_id=PREVIOUS, version=2026110200, decided_by="x")
    enthrone(tmp_path, Champion(run_id=RUN, version=2026110300, decided_by="y", previous=previous))
    return tmp_path


def served(root: Path) -> str:
    """Returns the run whose model TensorFlow Serving would load."""
    version = published_versions(str(root))[-1]
    return (root / "serving" / str(version) / "saved_model.pb").read_text()


def test_versions_rise_with_the_date() -> None:
    days = [
        datetime.date(2026, 1, 9),
        datetime.date(2026, 1, 10),
        datetime.date(2026, 12, 1),
        datetime.date(2027, 1, 1),
    ]
    versions = list(map(version_of, days))
    assert versions == sorted(versions)
    assert version_after(Champion(run_id="x", version=versions[0], decided_by="")) < versions[1]
    with pytest.raises(DotbiasError, match="last one of its date"):
        version_after(Champion(run_id="x", version=versions[0] + 99, decided_by=""))


def test_what_is_published_is_whole_and_is_not_made_twice(root: Path) -> None:
    run = root / "runs" / RUN
    arguments = (str(root), str(run / "model" / "export"), 2026110300)
    path = Path(publish(*arguments))
    assert [str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()] == ["saved_model.pb"]
    (path / "saved_model.pb").write_text("as it was")
    publish(*arguments)
    assert served(root) == "as it was"


def test_a_rollback_serves_the_predecessor_under_a_higher_version(root: Path) -> None:
    back = roll_back(str(root), None)
    assert (back.run_id, back.version, back.decided_by) == (PREVIOUS, 2026110301, "rollback")
    assert back.previous is not None
    assert back.previous.run_id == RUN
    assert served(root) == PREVIOUS
    # And forward again.
    assert roll_back(str(root), RUN).version == 2026110302
    assert served(root) == RUN


@pytest.mark.parametrize(
    ("run_id", "message"),
    [
        (RUN, "is the champion already"),
        ("2026-10-01", "never was champion. Former champions: 2026-11-02, 2026-11-03"),
    ],
)
def test_runs_that_cannot_be_put_back(root: Path, run_id: str, message: str) -> None:
    with pytest.raises(DotbiasError, match=message):
        roll_back(str(root), run_id)
    assert published_versions(str(root)) == []


def test_a_model_that_is_gone_cannot_be_put_back(root: Path) -> None:
    (root / "runs" / PREVIOUS / "model" / "export" / "saved_model.pb").unlink()
    with pytest.raises(DotbiasError, match=r"has no saved_model\.pb"):
        roll_back(str(root), None)


def test_pin_and_release(root: Path) -> None:
    assert pin(str(root), True).pinned
    champion, _ = Throne(str(root)).read()
    assert champion is not None
    assert champion.pinned
    assert not pin(str(root), False).pinned


def test_without_a_champion(tmp_path: Path) -> None:
    for command in (lambda: roll_back(str(tmp_path), None), lambda: pin(str(tmp_path), True)):
        with pytest.raises(DotbiasError, match="there is no champion"):
            command()
