"""Tests the table of nights, its page and its warnings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dotbias.retraining.champion import Champion
from dotbias.retraining.decision import decision_text
from dotbias.retraining.history import History, history_json, history_text, read_history
from dotbias.retraining.history_page import history_page
from tests.dotbias.retraining.nights import decision, measured, write_decision

CHAMPION = Champion(run_id="2026-11-02", version=2026110200, decided_by="runs/2026-11-02/decision.json", pinned=True)


@pytest.fixture
def history(tmp_path: Path) -> History:
    write_decision(tmp_path, decision("2026-11-02", champion="2026-11-01"))
    write_decision(tmp_path, decision("2026-11-01", champion=None, champion_metrics=None, gains=None))
    write_decision(tmp_path, decision("2026-11-03", "kept", champion="2026-11-02"))
    (tmp_path / "runs" / "2026-11-01" / "seconds.json").write_text('{"preprocess": 10, "train": 20.4}')
    # Not a night: another run, and one that has not decided.
    (tmp_path / "runs" / "experiment").mkdir()
    (tmp_path / "runs" / "2026-11-04").mkdir()
    return read_history(str(tmp_path), CHAMPION, warn_after=3)


def test_the_table(history: History) -> None:
    lines = history_text(history).splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["date", "2026-11-01", "2026-11-02", "2026-11-03"]
    assert lines[1].endswith("30")
    assert "1,100" in lines[1]
    assert "12.5%" in lines[1]
    assert "promoted" in lines[2]
    assert "kept: gain in auc" in lines[3]
    assert lines[-1] == "Serving     2026-11-02, version 2026110200, pinned"


def test_an_empty_history(tmp_path: Path) -> None:
    empty = read_history(str(tmp_path), None, 3)
    assert history_text(empty) == "No run has decided yet.\n"
    assert "No run has decided yet." in history_page(empty)


def test_for_machines(history: History) -> None:
    found = json.loads(json.dumps(history_json(history)))
    assert [night["decision"]["outcome"] for night in found["nights"]] == ["promoted", "promoted", "kept"]
    assert found["champion"]["run_id"] == "2026-11-02"


def test_the_page_names_all_nights_and_needs_no_other_file(history: History) -> None:
    page = history_page(history)
    for run in ("2026-11-01", "2026-11-02", "2026-11-03"):
        assert run in page
    assert "http-equiv" not in page
    assert 'src="http' not in page


def test_nights_without_a_promotion_are_a_warning(tmp_path: Path) -> None:
    write_decision(tmp_path, decision("2026-11-01"))
    for day in (2, 3):
        write_decision(tmp_path, decision(f"2026-11-{day:02}", "kept"))
        warned = read_history(str(tmp_path), CHAMPION, warn_after=2).warnings
        assert bool(warned) == (day == 3)
    assert warned == ["No promotion in the last 2 nights; the last one failed: gain in auc"]


@pytest.mark.parametrize(("gain", "warned"), [(-0.02, True), (-0.005, False), (0.02, False)])
def test_a_refit_that_made_the_champion_worse_is_a_warning(tmp_path: Path, gain: float, warned: bool) -> None:
    write_decision(tmp_path, decision("2026-11-02", refit_gains=measured(gain)))
    assert bool(read_history(str(tmp_path), CHAMPION, 3).warnings) == warned


def test_a_champion_that_disappoints_is_a_warning(tmp_path: Path) -> None:
    write_decision(tmp_path, decision("2026-11-02", challenger_metrics=measured(0.8)))
    write_decision(tmp_path, decision("2026-11-03", champion="2026-11-02", champion_metrics=measured(0.7)))
    (warning,) = read_history(str(tmp_path), CHAMPION, 3).warnings
    assert warning.startswith("The champion 2026-11-02 disappoints: AUC 0.7000")


def test_without_labels_nights_are_followed_by_their_lists(tmp_path: Path) -> None:
    write_decision(tmp_path, decision("2026-11-02", challenger_metrics=measured(None, ndcg=0.25)))
    lists = {name: measured(None, ndcg=value) for name, value in (("champion_metrics", 0.125), ("gains", 0.0625))}
    after = decision("2026-11-03", challenger_metrics=measured(None, ndcg=0.1875), **lists, champion="2026-11-02")
    write_decision(tmp_path, after)
    history = read_history(str(tmp_path), CHAMPION, 3)
    header, _, line = history_text(history).splitlines()[:3]
    assert "ndcg@10" in header
    assert all(shown in line for shown in ("0.1875 (0.1775 to 0.1975)", "0.1250", "+0.0625"))
    assert history.warnings[0].startswith("The champion 2026-11-02 disappoints: NDCG@10 0.1250")
    assert "NDCG@10 by night" in history_page(history)


@pytest.mark.parametrize("version", [2026110200, 2026110201])
def test_a_version_above_the_champion_is_a_warning(tmp_path: Path, version: int) -> None:
    write_decision(tmp_path, decision("2026-11-02"))
    for name in (2026110200, version):
        (tmp_path / "serving" / str(name)).mkdir(parents=True, exist_ok=True)
    warned = read_history(str(tmp_path), CHAMPION, 3).warnings
    assert [f"version {version}, above" in warning for warning in warned] == [True] * (version > CHAMPION.version)


def test_the_text_of_a_decision_shows_every_check() -> None:
    text = decision_text(decision("2026-11-03", "kept"))
    assert "kept: 2026-11-02 goes on serving" in text
    assert "failed: gain in auc" in text
    line = next(line for line in text.splitlines() if "at least -0.005" in line)
    assert "FAILED" in line


@pytest.mark.parametrize(
    ("warm_start", "said"),
    [
        ({"cold": "there is no champion yet"}, "trained from nothing: there is no champion yet"),
        (
            {"features": {"userId": {"kept": 1200, "new": 30, "gone": 4}, "movieId": {"kept": 5, "new": 0, "gone": 1}}},
            "weights: userId 1,200 kept, 30 new, 4 gone; movieId 5 kept, 0 new, 1 gone",
        ),
    ],
)
def test_the_text_of_a_decision_says_what_became_of_the_ids(warm_start: dict[str, Any], said: str) -> None:
    assert said in decision_text(decision("2026-11-03", warm_start=warm_start))
