"""Tests versions in `serving/`, rollback and pin."""

from __future__ import annotations

import datetime
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dotbias.retraining.champion import Champion, Throne
from dotbias.retraining.runs import published_versions
from dotbias.retraining.serving import (
    next_version,
    pin,
    publish,
    read_origin,
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


def test_a_version_is_above_what_serves_even_after_a_rollback() -> None:
    day = datetime.date(2026, 11, 4)
    assert next_version(day, None) == 2026110400
    assert next_version(day, Champion(run_id=RUN, version=2026110305, decided_by="")) == 2026110400
    # 2026-11-06 was promoted and rolled back; then a night of 2026-11-04 is made up.
    assert next_version(day, Champion(run_id=RUN, version=2026110601, decided_by="rollback")) == 2026110602


def test_what_is_published_is_whole_and_is_not_made_twice(root: Path) -> None:
    path = Path(publish(str(root), RUN, 2026110300))
    assert sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()) == [
        "assets.extra/dotbias.json",
        "saved_model.pb",
    ]
    (path / "saved_model.pb").write_text("as it was")
    publish(str(root), RUN, 2026110300)
    assert served(root) == "as it was"
    # Without its last file it is not complete.
    (path / "saved_model.pb").unlink()
    publish(str(root), RUN, 2026110300)
    assert served(root) == RUN


def test_what_a_killed_command_published_of_another_model_is_replaced(root: Path) -> None:
    publish(str(root), PREVIOUS, 2026110301)
    publish(str(root), RUN, 2026110301)
    assert served(root) == RUN
    origin = read_origin(str(root), 2026110301)
    assert origin is not None
    assert origin["run_id"] == RUN
    # The same run, trained again.
    variables = root / "runs" / RUN / "model" / "export" / "variables"
    variables.mkdir()
    for checksums in ("one", "two"):
        (variables / "variables.index").write_text(checksums)
        path = Path(publish(str(root), RUN, 2026110301))
        assert (path / "variables" / "variables.index").read_text() == checksums


def test_rollbacks_at_the_same_time_leave_the_champion_that_serves(root: Path) -> None:
    third = "2026-11-01"
    for name in ("dataset", "model"):
        shutil.copytree(root / "runs" / PREVIOUS / name, root / "runs" / third / name)
    (root / "runs" / third / "model" / "export" / "saved_model.pb").write_text(third)
    write_decision(root, decision(third))
    with ThreadPoolExecutor() as pool:
        made = [future.result() for future in [pool.submit(roll_back, str(root), run) for run in (PREVIOUS, third)]]
    champion, _ = Throne(str(root)).read()
    assert champion is not None
    assert champion.run_id == served(root)
    assert sorted(back.version for back in made) == [2026110301, 2026110302] == published_versions(str(root))


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
