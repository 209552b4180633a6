"""Checks what a night decides about the champion that it finds, without a training."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dotbias.retraining import champion as serving_lock
from dotbias.retraining.champion import ROLLBACK, Champion, Throne, locked_serving
from dotbias.retraining.config import RetrainingConfig
from dotbias.retraining.decision import Decision
from dotbias.retraining.gate import Check
from dotbias.retraining.judge import Judgement
from dotbias.retraining.retrain import Night, _decide, _delete_old, _why_not_compared, reference_run
from dotbias.retraining.runs import RunPaths, make_plan, published_versions
from dotbias.retraining.serving import publish, roll_back
from pipeline.config import PipelineConfig
from pipeline.manifest import DatasetManifest, DotbiasError, read_manifest
from pipeline.storage.lock import LockedError, lock
from tests.dotbias.retraining.nights import decision, enthrone, measured, write_decision
from tests.trainer.conftest import SIDES, random_rows
from tests.trainer.datasets import write_dataset
from trainer.config import TrainerConfig

FIRST, SECOND, THIRD, FOURTH = (f"2026-11-0{day}" for day in (1, 2, 3, 4))
FAILED = Check(name="auc", value=0.4, rule="at least", limit=0.5, passed=False)
PIPELINE = PipelineConfig.model_validate(
    {
        "input": {"patterns": ["log.csv"]},
        "columns": {"userId": "int64", "movieId": "int64", "clicked": "int64"},
        "label": {"column": "clicked"},
        "features": {"userId": {"side": "user"}, "movieId": {"side": "item"}},
    }
)


def night_of(root: Path, run_id: str) -> Night:
    day = datetime.date.fromisoformat(run_id)
    return Night(str(root), day, PIPELINE, TrainerConfig(), RetrainingConfig())


def manifest_of(root: Path, run_id: str) -> DatasetManifest:
    return read_manifest(RunPaths(str(root), run_id).dataset)


def champion(run_id: str, version: int, previous: Champion | None = None, **more: object) -> Champion:
    return Champion(run_id=run_id, version=version, decided_by="x", previous=previous, **more)


def judged(against: str | None, *failed: Check) -> Judgement:
    return Judgement(
        [*failed], challenger=measured(0.75), champion=measured(0.7), gains=measured(0.05), against=against
    )


def decide(root: Path, run_id: str, judgement: Judgement) -> Decision | None:
    return _decide(night_of(root, run_id), Throne(str(root)), judgement, manifest_of(root, run_id), {})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three nights that were promoted, the last of which serves, and a fourth that has not decided."""
    before = None
    for number, run in enumerate((FIRST, SECOND, THIRD, FOURTH), start=1):
        rows, eval_rows = random_rows(50, 1, string_ids=True), random_rows(10, 2, string_ids=True)
        write_dataset(tmp_path / "runs" / run / "dataset", rows, eval_rows, SIDES)
        export = tmp_path / "runs" / run / "model" / "export"
        export.mkdir(parents=True)
        (export / "saved_model.pb").write_text(run)
        plan = make_plan(datetime.date.fromisoformat(run), RetrainingConfig(), before, [])
        (tmp_path / "runs" / run / "plan.json").write_text(plan.to_json())
        if run != FOURTH:
            write_decision(tmp_path, decision(run))
            publish(str(tmp_path), run, 2026110000 + 100 * number)
        before = run
    enthrone(tmp_path, champion(THIRD, 2026110300, champion(SECOND, 2026110200)))
    return tmp_path


def serves(root: Path) -> tuple[str, int]:
    """Returns what `champion.json` says, after a check that TensorFlow Serving would take it."""
    found, _ = Throne(str(root)).read()
    assert found is not None
    assert published_versions(str(root))[-1] == found.version
    assert (root / "serving" / str(found.version) / "saved_model.pb").read_text() == found.run_id
    return found.run_id, found.version


def test_a_night_that_passes_serves(root: Path) -> None:
    made = decide(root, FOURTH, judged(THIRD))
    assert made is not None
    assert (made.outcome, made.version, made.champion) == ("promoted", 2026110400, THIRD)
    assert serves(root) == (FOURTH, 2026110400)


def test_a_night_whose_champion_changed_is_compared_again(root: Path) -> None:
    roll_back(str(root), FIRST)
    assert decide(root, FOURTH, judged(THIRD)) is None
    # Also if it would be kept back: it may be better than the other one.
    assert decide(root, FOURTH, judged(THIRD, FAILED)) is None
    assert serves(root) == (FIRST, 2026110301)
    made = decide(root, FOURTH, judged(FIRST))
    assert made is not None
    assert serves(root) == (FOURTH, 2026110400)


def test_a_date_between_a_champion_put_back_and_the_one_before_gets_a_version_that_serves(root: Path) -> None:
    roll_back(str(root), FIRST)
    made = decide(root, SECOND, judged(FIRST))
    assert made is not None
    assert (made.outcome, made.version) == ("promoted", 2026110302)
    assert serves(root) == (SECOND, 2026110302)


def test_a_backfill_and_a_pin_are_reasons(root: Path) -> None:
    late = decide(root, SECOND, judged(FIRST, FAILED))
    assert late is not None
    assert late.reasons == ["failed: auc", f"the champion {THIRD} is newer"]
    enthrone(root, champion(THIRD, 2026110300, pinned=True))
    made = decide(root, FOURTH, judged(THIRD))
    assert made is not None
    assert (made.outcome, made.reasons) == ("kept", [f"the champion {THIRD} is pinned"])
    assert serves(root) == (THIRD, 2026110300)


def test_a_start_after_a_kill_finds_itself_champion(root: Path) -> None:
    """It is compared with what it was compared with then, which a rollback may have put back."""
    roll_back(str(root), FIRST)
    first = decide(root, FOURTH, judged(FIRST))
    found, _ = Throne(str(root)).read()
    assert reference_run(str(root), found, datetime.date(2026, 11, 4)) == FIRST
    assert decide(root, FOURTH, judged(FIRST)) == first
    assert serves(root) == (FOURTH, 2026110400)


def test_a_champion_that_does_not_pass_any_more_is_an_error(root: Path) -> None:
    (root / "runs" / THIRD / "decision.json").unlink()
    with pytest.raises(
        DotbiasError, match=rf"{THIRD} is the champion already, and would be kept back now \(failed: auc"
    ):
        decide(root, THIRD, judged(SECOND, FAILED))
    assert serves(root) == (THIRD, 2026110300)


@pytest.mark.parametrize(
    ("run_id", "decided_by", "previous", "expected"),
    [
        (THIRD, "x", SECOND, THIRD),
        # A night that is begun again when it is champion already.
        (FOURTH, "x", FIRST, FIRST),
        (FOURTH, "x", None, None),
        # Put back after a later one: what served before is not what it had to beat.
        (FOURTH, ROLLBACK, "2026-11-09", THIRD),
        # A backfill.
        ("2026-11-09", "x", "2026-11-08", THIRD),
    ],
)
def test_what_a_run_is_compared_with(
    root: Path, run_id: str, decided_by: str, previous: str | None, expected: str | None
) -> None:
    before = None if previous is None else champion(previous, 1)
    found = Champion(run_id=run_id, version=2, decided_by=decided_by, previous=before)
    assert reference_run(str(root), found, datetime.date(2026, 11, 4)) == expected


def why_not(root: Path, run_id: str, against: str, start: str | None = None, **config: int) -> str:
    found, _ = Throne(str(root)).read()
    night = night_of(root, run_id)
    plan = make_plan(night.day, RetrainingConfig(**config), start or against, [])
    return _why_not_compared(night, plan, found, against, manifest_of(root, run_id))


def test_why_a_run_is_not_compared(root: Path) -> None:
    assert why_not(root, FOURTH, THIRD) == ""
    assert f"{THIRD} was trained on rows before {THIRD}, and" in why_not(root, FOURTH, THIRD, eval_days=2)
    # Weights to start from that know the eval rows would flatter the challenger.
    assert f"{THIRD} was trained" in why_not(root, FOURTH, SECOND, start=THIRD, eval_days=2)
    # A model of that time has been deleted, which is no fault of a backfill.
    (root / "runs" / FIRST / "model" / "export" / "saved_model.pb").unlink()
    assert f"{FIRST}, which was champion before {SECOND}, has no model any more" in why_not(root, SECOND, FIRST)


def test_a_champion_with_a_feature_that_is_gone_cannot_be_asked(root: Path) -> None:
    path = root / "runs" / FOURTH / "dataset" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["features"]["renamed"] = manifest["features"].pop("userId")
    path.write_text(json.dumps(manifest))
    assert f"{THIRD} takes userId, which the night does not have" in why_not(root, FOURTH, THIRD)


def test_what_was_published_by_a_command_that_was_killed_goes(root: Path) -> None:
    publish(str(root), FOURTH, 2026110400)
    # A copy that was not finished.
    (root / "serving" / "2026110401.0123.partial" / "variables").mkdir(parents=True)
    _delete_old(night_of(root, FOURTH), Throne(str(root)).read()[0])
    assert serves(root) == (THIRD, 2026110300)
    assert sorted(path.name for path in (root / "serving").iterdir()) == ["2026110100", "2026110200", "2026110300"]


def test_versions_of_rollbacks_go_with_the_model_of_their_run(root: Path) -> None:
    roll_back(str(root), FIRST)
    roll_back(str(root), SECOND)
    roll_back(str(root), THIRD)
    config = RetrainingConfig.model_validate({"keep": {"exports": 1}})
    night = Night(str(root), datetime.date(2026, 11, 4), PIPELINE, TrainerConfig(), config)
    _delete_old(night, Throne(str(root)).read()[0])
    # The champion has two, the predecessor its last one, and the first run none.
    assert published_versions(str(root)) == [2026110200, 2026110300, 2026110302, 2026110303]
    assert serves(root) == (THIRD, 2026110303)
    assert not (root / "runs" / FIRST / "model" / "export").exists()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(serving_lock, "_TRIES", 2)
    monkeypatch.setattr(serving_lock, "_SECONDS_BETWEEN", 0.0)
    yield


@pytest.mark.usefixtures("impatient")
def test_one_command_at_a_time_changes_what_serves(root: Path) -> None:
    with locked_serving(str(root)), pytest.raises(LockedError, match="what serves in"):
        roll_back(str(root), None)
    assert serves(root) == (THIRD, 2026110300)
    with lock(str(root / "serving.lock"), "what serves"), pytest.raises(LockedError):
        decide(root, FOURTH, judged(THIRD))
    assert serves(root) == (THIRD, 2026110300)
