"""Tests a search: on a made-up surface of scores, where its result is known, and with real trainings."""

from __future__ import annotations

import csv
import math
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.manifest import DotbiasError
from tests.trainer.conftest import SIDES, random_rows, small_config
from tests.trainer.datasets import write_dataset
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.search import tuning
from trainer.search.space import search_space, varied, with_values
from trainer.search.trainings import Answers, GivenUp, Laboratory, Whole
from trainer.search.tuning import Tuned, tune
from trainer.train import train

_EPOCHS, _BEST_EPOCH = 19, 16


def config_of(trials: int, **changes: Any) -> TrainerConfig:
    return TrainerConfig.model_validate({**small_config().model_dump(), "tune": {"trials": trials}, **changes})


@pytest.fixture(scope="module")
def dataset_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("dataset")
    write_dataset(path, random_rows(550, 1), random_rows(90, 2), SIDES, positive_at=0.5)
    return str(path)


def table(directory: Path) -> list[dict[str, str]]:
    with (directory / "trials.csv").open() as file:
        return list(csv.DictReader(file))


class Surface(Laboratory):
    """Has scores that follow from the options, and noise, instead of models; counts rows and epochs of trainings."""

    score_of: Callable[[TrainerConfig], float]
    seed = 0
    # Standard error of a score, of which half is the same for all options, since all are measured on the same rows.
    noise = 0.002
    # (train rows, epochs) of each training.
    done: list[tuple[int, int]]
    # In memory instead of in files.
    kept: dict[int, Whole]

    def whole(self, number: int, config: TrainerConfig) -> Whole:
        if number not in self.kept:
            self.kept[number] = Whole(_BEST_EPOCH, _EPOCHS, self._score(self.data, config, _EPOCHS), {})
        return self.kept[number]

    def short(self, start: int, config: TrainerConfig, epochs: int) -> float:
        self.trainings += 1
        self.tell(epochs)
        return self._score(self.data, config, epochs)

    def again(self, name: str, data: Dataset, config: TrainerConfig) -> Answers:
        scores = self._score(data, config, _EPOCHS) + self._random(config).normal(0, 50 * self.noise / 2**0.5, 2500)
        return Answers(scores, np.arange(2500), data.split("train").rows * _EPOCHS)

    def _score(self, data: Dataset, config: TrainerConfig, epochs: int) -> float:
        self.done.append((data.split("train").rows, epochs))
        score = type(self).score_of(config)
        return score if data is not self.data else score + self._random(config).normal(0, self.noise / 2**0.5)

    def _random(self, config: TrainerConfig) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(config.model_dump_json().encode())])


@pytest.fixture
def surface(monkeypatch: pytest.MonkeyPatch) -> type[Surface]:
    made = type("Made", (Surface,), {"done": [], "kept": {}, "score_of": staticmethod(lambda config: 0.0)})
    monkeypatch.setattr(tuning, "Laboratory", made)
    return made


def quadratic(config: TrainerConfig) -> float:
    """Gains 0.01 at half the L2 of `small_config`, and loses more the farther from it."""
    assert config.l2 is not None
    return 0.01 - 0.02 * math.log2(config.l2 / 0.005) ** 2 / 2


def test_what_is_better_beyond_chance_is_found(
    dataset_path: str, tmp_path: Path, surface: type[Surface], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surface, "score_of", staticmethod(quadratic))
    tuned = tune(dataset_path, str(tmp_path), config_of(25))
    assert tuned.values["l2"] == pytest.approx(0.005, rel=0.4)
    assert tuned.gain is not None and tuned.gain.value == pytest.approx(0.01, abs=0.004)
    (chosen,) = (row for row in table(tmp_path) if row["chosen"])
    assert float(chosen["l2"]) == pytest.approx(tuned.values["l2"], rel=1e-5)
    assert float(chosen["gain on other rows"]) == pytest.approx(tuned.gain.value, rel=1e-4)


def test_luck_is_not_taken_for_a_gain(
    dataset_path: str, tmp_path: Path, surface: type[Surface], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = []
    for seed in range(5):
        # All options are a little worse than the given ones.
        monkeypatch.setattr(surface, "seed", seed)
        surface.kept.clear()
        monkeypatch.setattr(surface, "score_of", staticmethod(lambda c: -0.001 * abs(math.log(c.l2 / 0.01))))
        tuned = tune(dataset_path, str(tmp_path / str(seed)), config_of(25))
        lost.append(0.001 * abs(math.log(tuned.values["l2"] / 0.01)) if tuned.values else 0.0)
    assert np.count_nonzero(lost) <= 1 and np.mean(lost) < 0.0005


def test_25_trials_cost_what_five_trainings_do(
    dataset_path: str, tmp_path: Path, surface: type[Surface], monkeypatch: pytest.MonkeyPatch
) -> None:
    # There is the most to do: two finalists, one of which goes through all folds.
    monkeypatch.setattr(surface, "score_of", staticmethod(quadratic))
    tuned = tune(dataset_path, str(tmp_path), config_of(25, epochs=40))
    rows = sum(rows * epochs for rows, epochs in surface.done)
    assert tuned.cost == pytest.approx(rows / (550 * _EPOCHS))
    trials = sum(rows * epochs for rows, epochs in surface.done if rows == 550)
    assert trials / (550 * _EPOCHS) < 6 and tuned.cost < 11


class Killed(BaseException):
    pass


def test_after_a_kill_a_search_comes_to_the_same_result(
    dataset_path: str, tmp_path: Path, surface: type[Surface], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surface, "score_of", staticmethod(quadratic))
    without = tune(dataset_path, str(tmp_path / "without"), config_of(12))
    surface.kept.clear()

    def die_in(number: int) -> Callable[..., None]:
        def progress(stage: str, done: int, total: int | None, numbers: Any) -> None:
            if numbers["training"] == number:
                raise Killed

        return progress

    for number in (1, 4, 6):
        with pytest.raises(Killed):
            tune(dataset_path, str(tmp_path / "with"), config_of(12), die_in(number))
    assert tune(dataset_path, str(tmp_path / "with"), config_of(12)) == without
    assert table(tmp_path / "with") == table(tmp_path / "without")


def test_more_trials_go_on_with_the_last_round(dataset_path: str, tmp_path: Path, surface: type[Surface]) -> None:
    tune(dataset_path, str(tmp_path), config_of(4))
    before = table(tmp_path)
    assert tune(dataset_path, str(tmp_path), config_of(12)).trials == 12
    rows = table(tmp_path)
    options = ("round", "l2", "bias_l2_factor", "score")
    assert [[row[key] for key in options] for row in rows[:4]] == [[row[key] for key in options] for row in before]
    assert [row["round"] for row in rows] == ["1"] * 9 + ["2"] * 3


def test_another_configuration_is_another_search(dataset_path: str, tmp_path: Path, surface: type[Surface]) -> None:
    tune(dataset_path, str(tmp_path), config_of(2))
    before = (tmp_path / "journal.log").read_bytes()
    assert tune(dataset_path, str(tmp_path), config_of(1, embedding_dim=6)).trials == 1
    assert (tmp_path / "journal.log").read_bytes().startswith(before)


def test_minutes_end_the_trials_after_the_one_that_is_under_way(
    dataset_path: str, tmp_path: Path, surface: type[Surface]
) -> None:
    config = config_of(50, tune={"trials": 50, "minutes": 1e-6})
    tuned = tune(dataset_path, str(tmp_path), config)
    assert tuned.trials == 1 and not tuned.values and tuned.gain is None


def test_the_page_needs_nothing_from_elsewhere(dataset_path: str, tmp_path: Path, surface: type[Surface]) -> None:
    tune(dataset_path, str(tmp_path), config_of(2))
    page = (tmp_path / "report.html").read_text()
    assert "2 trials, 0 more given up" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)


def test_without_eval_rows_there_is_nothing_to_judge_by(tmp_path: Path) -> None:
    write_dataset(tmp_path / "dataset", random_rows(50, 1), random_rows(0, 2), SIDES)
    with pytest.raises(DotbiasError, match="no eval rows"):
        tune(str(tmp_path / "dataset"), str(tmp_path / "tune"), config_of(1))


def test_the_search_is_around_the_configuration() -> None:
    values = varied(TrainerConfig(l2=0.2, bias_l2_factor=3.0))
    space = search_space(values, 0.5)
    assert values == {"l2": 0.2, "bias_l2_factor": 3.0} and space.keys() == values.keys()
    for key, start in values.items():
        assert space[key].low == pytest.approx(start / 2**0.5) and space[key].high == pytest.approx(start * 2**0.5)
    # What was switched off stays so.
    assert "l2" not in varied(TrainerConfig(l2=0.0, bias_l2_factor=3.0))


GIVEN = config_of(6, l2=3.0, epochs=8)


@pytest.fixture(scope="module")
def finished(dataset_path: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tuned]:
    """Returns a search with real trainings."""
    directory = tmp_path_factory.mktemp("tune")
    return directory, tune(dataset_path, str(directory), GIVEN)


@pytest.mark.slow
def test_whole_trainings_are_what_train_would_do(
    dataset_path: str, finished: tuple[Path, Tuned], tmp_path: Path
) -> None:
    whole = [row for row in table(finished[0]) if row["best period"]]
    assert len(whole) == 2
    for row in whole:
        values = {key: float(row[key]) for key in ("l2", "bias_l2_factor")}
        result = train(dataset_path, str(tmp_path / row["trial"]), with_values(GIVEN, values))
        assert int(row["best period"]) == result["train"]["best_epoch"]
        # The log loss is that against classes after the map, whose targets are not 0 and 1.
        score = result["eval"]["auc"] - result["calibration"]["log_loss"]
        assert float(row["eval score of a whole training"]) == pytest.approx(score, abs=2e-3)


@pytest.mark.slow
def test_what_is_done_is_not_done_again(dataset_path: str, finished: tuple[Path, Tuned]) -> None:
    directory, tuned = finished
    done: list[int] = []
    assert tune(dataset_path, str(directory), GIVEN, lambda *call: done.append(call[1])) == tuned
    assert not done
    # More trials go on with the round that was under way, and begin the next one.
    assert tune(dataset_path, str(directory), config_of(11, l2=3.0, epochs=8)).trials == 11


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_search(dataset_path: str, tmp_path: Path) -> None:
    config = config_of(1, optimizer={"learning_rate": 1e30}, l2=1e30)
    with pytest.raises(DotbiasError, match="The loss is not finite"):
        tune(dataset_path, str(tmp_path), config)


def test_a_trial_whose_loss_is_not_finite_is_given_up(
    dataset_path: str, tmp_path: Path, surface: type[Surface], monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_above(config: TrainerConfig) -> float:
        assert config.l2 is not None
        if config.l2 > 0.01:
            raise GivenUp("The loss is not finite.")
        return quadratic(config)

    monkeypatch.setattr(surface, "score_of", staticmethod(not_above))
    tuned = tune(dataset_path, str(tmp_path), config_of(9))
    assert tuned.trials == 9 and 0 < tuned.given_up < 8 and tuned.values["l2"] < 0.01
