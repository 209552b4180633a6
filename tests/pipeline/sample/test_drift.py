"""Tests the log whose users, items and tastes change from day to day."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from pipeline.sample.drift import Day, DriftConfig, days, main, write_days


def config(**options: object) -> DriftConfig:
    return DriftConfig.model_validate({"days": 3, "rows": 2000, "users": 100, "items": 50, **options})


def tokens(day: Day, column: str = "userId") -> set[int]:
    return set(day.rows[column].to_pylist())


def test_a_day_has_the_timestamps_of_its_date() -> None:
    for number, day in enumerate(days(config())):
        assert day.date == datetime.date(2026, 1, 1) + datetime.timedelta(days=number)
        seconds = day.rows["timestamp"].to_numpy()
        dates = {datetime.datetime.fromtimestamp(int(t), datetime.timezone.utc).date() for t in seconds[[0, -1]]}
        assert dates == {day.date}
        assert (np.diff(seconds) >= 0).all()


def test_a_shorter_log_is_the_beginning_of_a_longer_one() -> None:
    for one, other in zip(days(config(days=2)), days(config(days=4)), strict=False):
        assert one.rows.equals(other.rows)


def test_nothing_changes_without_turnover_and_drift() -> None:
    first, *_, last = days(config(turnover=0, drift=0, days=10, rows=20_000))
    assert tokens(first) == tokens(last)


def test_ids_leave_and_new_ones_arrive() -> None:
    found = list(days(config(turnover=0.5, days=31, rows=20_000)))
    first, last = tokens(found[0]), tokens(found[-1])
    # Half of a hundred users, give or take four standard deviations.
    assert 30 <= len(last - first) <= 70
    assert min(last - first) >= 100


def test_labels_follow_the_probabilities() -> None:
    (day,) = days(config(days=1, rows=50_000))
    assert day.rows["clicked"].to_numpy().mean() == pytest.approx(float(day.probabilities.mean()), abs=0.01)


def test_tastes_move_away() -> None:
    def correlation(drift: float) -> float:
        """Correlates the click rates of the items on the first and the last day."""
        found = list(days(config(turnover=0, drift=drift, days=31, rows=50_000, items=20)))
        rates = []
        for day in (found[0], found[-1]):
            frame = day.rows.group_by("movieId").aggregate([("clicked", "mean")]).sort_by("movieId")
            rates.append(frame["clicked_mean"].to_numpy())
        return float(np.corrcoef(rates)[0, 1])

    assert correlation(0.0) > 0.95
    assert correlation(0.9) < 0.6


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--days", "2", "--rows", "500", "--users", "50", "--items", "20"]
    main([*arguments, "--output_directory", str(tmp_path / "log")])
    files = sorted(path.name for path in (tmp_path / "log").iterdir())
    assert files == ["2026-01-01.csv", "2026-01-02.csv"]
    assert len(capsys.readouterr().out.splitlines()) == 2
    table = pa.csv.read_csv(tmp_path / "log" / files[1])
    assert table.column_names == ["userId", "movieId", "clicked", "timestamp"]
    assert len(table) == 500


def test_an_option_out_of_range(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--days", "2", "--rows", "500", "--users", "50", "--items", "20", "--drift", "2"]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--output_directory", str(tmp_path)])
    assert stop.value.code == 2
    assert "--drift: should be less than or equal to 1. Received: 2.0" in capsys.readouterr().err


def test_the_ceiling_is_that_of_the_day(tmp_path: Path) -> None:
    from sklearn.metrics import roc_auc_score

    wanted = config(days=2)
    for day, written in zip(days(wanted), write_days(wanted, str(tmp_path)), strict=True):
        expected = roc_auc_score(day.rows["clicked"].to_numpy(), day.probabilities)
        assert written.ceiling_auc == pytest.approx(expected, abs=1e-3)
