"""Runs nights by the real command with `retraining.mode: incremental`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.dotbias.retraining.test_retrain import CONFIG, done, make_log, night, read
from tests.opened_files import opened_files

pytestmark = pytest.mark.slow

DATES = ["2026-01-07", "2026-01-08", "2026-01-09"]
# What the second and third night may open; the first file is looked at before each job, for mistakes.
NEW = [{"2026-01-06.csv", "2026-01-07.csv"}, {"2026-01-07.csv", "2026-01-08.csv"}]
FIRST = "2026-01-01.csv"


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[set[str]]]:
    """Runs three nights with a gate that passes all; returns the files that each opened. One file arrives a day."""
    directory = tmp_path_factory.mktemp("nights")
    make_log(directory, 9)
    gate = {"margin": {"auc": 1.0, "log_loss": 10.0}, "slices": {"new_users": None, "new_items": None}}
    retraining = {**CONFIG["retraining"], "mode": "incremental", "gate": {**gate, "verdict": False}}
    (directory / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "retraining": retraining}))
    later = directory / "later"
    later.mkdir()
    for path in sorted((directory / "log").iterdir()):
        if path.name >= f"{DATES[0]}.csv":
            path.rename(later / path.name)
    opened = []
    for date in DATES:
        with opened_files(directory / "log") as so_far:
            done(night(directory, date))
            opened.append({path.name for path in so_far()})
        arrived = later / f"{date}.csv"
        arrived.rename(directory / "log" / arrived.name)
    return directory, opened


def test_the_first_night_is_a_full_one_and_says_why(nights: tuple[Path, list[set[str]]]) -> None:
    directory, opened = nights
    plan = read(directory, "runs/2026-01-07/plan.json")
    assert (plan["mode"], plan["vocabulary_since"]) == ("full", None)
    assert plan["mode_reason"] == "a cold start: there is no champion yet"
    assert read(directory, "runs/2026-01-07/decision.json")["train_rows"] == 6000
    assert len(opened[0]) == 6


@pytest.mark.parametrize("number", [1, 2])
def test_the_next_ones_read_and_train_on_new_rows_alone(nights: tuple[Path, list[set[str]]], number: int) -> None:
    directory, opened = nights
    date, before = DATES[number], DATES[number - 1]
    assert opened[number] - {FIRST} == NEW[number - 1]
    plan, decision = (read(directory, f"runs/{date}/{name}.json") for name in ("plan", "decision"))
    assert (plan["mode"], plan["start"], decision["outcome"]) == ("incremental", before, "promoted")
    assert (plan["train_since"], plan["eval_since"]) == (f"2026-01-0{5 + number}", f"2026-01-0{6 + number}")
    assert plan["vocabulary_since"] == f"2026-01-0{2 + number}"
    assert (decision["train_rows"], decision["eval_rows"]) == (1500, 1500)
    assert decision["warm_start"]["features"]["userId"]["kept"] > 100
    manifest = read(directory, f"runs/{date}/dataset/manifest.json")
    # Four days of train rows are counted, of which one is trained on.
    assert manifest["counts"]["vocabulary"] == 6000
    assert manifest["counts"]["out_of_window"] == (4 + number) * 1500


def test_its_vocabularies_are_those_of_a_full_night(nights: tuple[Path, list[set[str]]]) -> None:
    directory, _ = nights
    done([*night(directory, DATES[2], "--only", "preprocess", "--set", "retraining.mode=full"), *other(directory)])
    found = [
        {path.name: path.read_bytes() for path in (root / "runs" / DATES[2] / "dataset" / "vocabulary").iterdir()}
        for root in (directory / "out", directory / "full")
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 4


def other(directory: Path) -> list[str]:
    """Returns flags for a root without a champion that uses the counts of the first root."""
    counts = f"pipeline.counts_cache={directory / 'out' / 'counts'}"
    return ["--output_root", str(directory / "full"), "--set", counts]


def test_the_gate_compares_rows_a_day(nights: tuple[Path, list[set[str]]]) -> None:
    directory, _ = nights
    checks = read(directory, "runs/2026-01-08/decision.json")["checks"]
    ratios = [check for check in checks if check["name"] == "train rows, ratio"]
    assert [(check["value"], check["passed"]) for check in ratios] == [(1.0, True)] * 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["pipeline.duplicates=last"], "`pipeline.duplicates: last` drops rows"),
        (["retraining.warm_start=false"], "needs `warm_start: true`"),
    ],
)
def test_what_does_not_go_with_it_is_one_line(
    nights: tuple[Path, list[set[str]]], values: list[str], message: str
) -> None:
    directory, _ = nights
    said = done(night(directory, "2026-01-10", *(part for value in values for part in ("--set", value))), code=2)
    assert message in said
    assert len(said.splitlines()) == 1
