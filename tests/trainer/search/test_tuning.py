from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from pipeline.manifest import DotbiasError
from tests.trainer.conftest import SIDES, random_rows, small_config
from tests.trainer.datasets import write_dataset
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.loop.defaults import with_automatic_values
from trainer.search.tuning import PRUNER, Tuned, _Report, search_space, tune, with_values
from trainer.train import train

pytestmark = pytest.mark.slow


def config_of(trials: int, **changes: Any) -> TrainerConfig:
    return TrainerConfig.model_validate({**small_config().model_dump(), "tune": {"trials": trials}, **changes})


@pytest.fixture(scope="module")
def dataset_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("dataset")
    write_dataset(path, random_rows(550, 1), random_rows(90, 2), SIDES, positive_at=0.5)
    return str(path)


@pytest.fixture(scope="module")
def finished(dataset_path: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tuned]:
    directory = tmp_path_factory.mktemp("tune")
    return directory, tune(dataset_path, str(directory), config_of(2))


def table(directory: Path) -> list[dict[str, str]]:
    with (directory / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_it_finds_the_best_of_its_trials(finished: tuple[Path, Tuned]) -> None:
    directory, tuned = finished
    rows = table(directory)
    assert tuned.trials == len(rows) == 2 and tuned.pruned == 0
    values = [float(row["eval auc"]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert tuned.best == pytest.approx(values[0], abs=1e-6) and tuned.first <= tuned.best
    for key, value in tuned.values.items():
        assert float(rows[0][key]) == pytest.approx(value, rel=1e-5)


def test_a_trial_is_what_train_would_do(dataset_path: str, finished: tuple[Path, Tuned], tmp_path: Path) -> None:
    result = train(dataset_path, str(tmp_path / "first"), config_of(3))
    assert finished[1].first == pytest.approx(
        result["train"]["epochs"][result["train"]["best_epoch"] - 1]["eval"]["auc"]
    )
    best = with_values(config_of(3), finished[1].values)
    result = train(dataset_path, str(tmp_path / "best"), best)
    assert finished[1].best == pytest.approx(result["eval"]["auc"])


def test_the_page_needs_nothing_from_elsewhere(finished: tuple[Path, Tuned]) -> None:
    page = (finished[0] / "report.html").read_text()
    assert "2 trials, 0 more given up" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)


def test_a_search_goes_on_where_it_was_stopped(dataset_path: str, finished: tuple[Path, Tuned], tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def die_in_the_second_trial(stage: str, done: int, total: int | None, numbers: Any) -> None:
        if numbers["trial"] == 2:
            raise Killed

    with pytest.raises(Killed):
        tune(dataset_path, str(tmp_path), config_of(3), die_in_the_second_trial)
    done: list[float] = []
    tuned = tune(dataset_path, str(tmp_path), config_of(2), lambda *call: done.append(call[3]["trial"]))
    # The first trial is not done again, and the one that was killed counts for nothing.
    assert min(done) == 3 and tuned.trials == 2
    assert tuned.first == finished[1].first
    assert {row["trial"] for row in table(tmp_path)} == {"1", "3"}
    # Nothing is left to do.
    done.clear()
    assert tune(dataset_path, str(tmp_path), config_of(2), lambda *call: done.append(call[1])) == tuned
    assert not done


def test_another_configuration_is_another_search(dataset_path: str, finished: tuple[Path, Tuned]) -> None:
    directory, _ = finished
    before = (directory / "journal.log").read_bytes()
    other = tune(dataset_path, str(directory), config_of(1, embedding_dim=6))
    assert other.trials == 1 and other.values["embedding_dim"] == 6
    assert (directory / "journal.log").read_bytes().startswith(before)


def test_minutes_end_a_search_after_the_trial_that_is_under_way(dataset_path: str, tmp_path: Path) -> None:
    config = config_of(50, tune={"trials": 50, "minutes": 1e-6}, epochs=1)
    assert tune(dataset_path, str(tmp_path), config).trials == 1


def test_a_loss_that_is_not_finite_ends_a_trial_and_not_the_search(dataset_path: str, tmp_path: Path) -> None:
    config = config_of(1, optimizer={"learning_rate": 1e30}, l2=1e30)
    with pytest.raises(DotbiasError, match="No trial was finished"):
        tune(dataset_path, str(tmp_path), config)


def test_without_eval_rows_there_is_nothing_to_judge_by(tmp_path: Path) -> None:
    write_dataset(tmp_path / "dataset", random_rows(50, 1), random_rows(0, 2), SIDES)
    with pytest.raises(DotbiasError, match="no eval rows"):
        tune(str(tmp_path / "dataset"), str(tmp_path / "tune"), config_of(1))


class _Model:
    stop_training = False


def report_of(trial: optuna.Trial, values: list[float], patience: int = 3) -> int:
    """Returns the epochs until the trial ends by itself."""
    report = _Report(trial, "auc", patience)
    report.model = _Model()  # type: ignore[assignment]
    for epoch, value in enumerate(values):
        report.on_epoch_end(epoch, {"val_auc": value, "label-crossentropy": 0.5})
        if report.model.stop_training:
            return epoch + 1
    return len(values)


def test_only_a_trial_that_stays_far_behind_is_given_up() -> None:
    study = optuna.create_study(direction="maximize", pruner=PRUNER)
    for best in (0.8, 0.79, 0.78, 0.77, 0.7):
        trial = study.ask()
        assert report_of(trial, [0.5, *np.linspace(0.6, best, 11)]) == 12
        study.tell(trial, best)
    # A trial that starts slowly goes on if it is not in the worst quarter after some epochs.
    assert report_of(study.ask(), [0.4 + 0.045 * epoch for epoch in range(12)]) == 12
    behind = study.ask()
    with pytest.raises(optuna.TrialPruned):
        report_of(behind, [0.5 + 0.01 * epoch for epoch in range(12)])
    assert len(study.trials[behind.number].intermediate_values) == 8


def test_a_trial_stops_as_train_would() -> None:
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
    assert report_of(study.ask(), [0.5, 0.7, 0.6, 0.65, 0.9], patience=2) == 4


def test_the_search_is_around_the_configuration(dataset_path: str) -> None:
    config = TrainerConfig(embedding_dim=50, l2=0.0)
    space = search_space(with_automatic_values(config, Dataset.open(dataset_path, config)))
    assert 50 in space["embedding_dim"][1][0]
    for key, start in (("l2", 0.1), ("bias_l2_factor", 1.0), ("optimizer.learning_rate", 0.003)):
        low, high = space[key][1]
        assert low < start < high
