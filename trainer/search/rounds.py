"""Looks for better options in rounds of short trials.

Trials of a round go on from the weights of a whole training for a few periods, each with options of its own around that
training's, and so show in which direction better options lie. They do not show how far: a step towards less L2 gains at
first even where it overfits later. So the best trial of a round is trained whole, from the start, and the next round
begins from it if it is better; else it is closer. (The first periods of trainings from the start would only show how
fast options let vectors grow.)

Sampling follows J. Bergstra et al., "Algorithms for Hyper-Parameter Optimization" (2011), multivariate.
"""

from __future__ import annotations

import itertools
import logging
import time
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from trainer.config import TrainerConfig
from trainer.search.space import search_space, varied, with_values
from trainer.search.trainings import GivenUp, Laboratory, Whole, rows_after

# Of a round. The first has the options that it begins with, the next ones random options around them.
_TRIALS, _RANDOM_TRIALS = 9, 5
# A trial has the periods that were best for the whole training, divided by this.
_SHARE_OF_PERIODS = 12
_log = logging.getLogger("trainer.train")


@dataclass(frozen=True)
class Trial:
    """Holds a trial; `score` is None if it was given up."""

    round: int
    values: dict[str, Any]
    score: float | None


class Search:
    """Does the trials of a search, or takes them from its journal.

    Args:
        laboratory: trains.
        config: the given configuration, with automatic values filled in.
        finds_items: whether the objective is `softmax`.
        journal: the file.
        name: of the search in the journal.

    Attributes:
        trials: by number.
        wholes: the whole trainings by number of the trial that has their options; 0 has the given ones.
        rows: that all trainings read.
    """

    def __init__(
        self, laboratory: Laboratory, config: TrainerConfig, *, finds_items: bool, journal: str, name: str
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._laboratory = laboratory
        self._config = config
        self._finds_items = finds_items
        self._storage = JournalStorage(JournalFileBackend(journal))
        self._name = name
        self.trials: list[Trial] = []
        self.wholes: dict[int, Whole] = {}
        self.rows = 0

    def config_of(self, number: int) -> TrainerConfig:
        """Return the configuration of a trial."""
        return with_values(self._config, self.trials[number].values) if number else self._config

    def best(self, number: int) -> list[int]:
        """Return at most so many trials whose whole trainings are better than the first, the best one first."""
        better = [trial for trial, whole in self.wholes.items() if whole.score > self.wholes[0].score]
        return sorted(better, key=lambda trial: -self.wholes[trial].score)[:number]

    def run(self) -> None:
        """Do rounds until a limit of `tune` in the configuration is reached.

        Raises:
            GivenUp: training with the given configuration cannot be finished.
        """
        limits = self._config.tune
        deadline = None if limits.minutes is None else time.monotonic() + 60 * limits.minutes
        self._train_whole(0)
        center, reach = 0, 1.0
        for number in itertools.count():
            left = limits.trials - len(self.trials)
            if left <= 0 or (number and deadline is not None and time.monotonic() >= deadline):
                return
            best = self._round(number, center, reach, min(_TRIALS, left), deadline)
            if best is not None and self._train_whole(best) and self.wholes[best].score > self.wholes[center].score:
                center = best
            else:
                reach /= 2

    def _train_whole(self, number: int) -> bool:
        """Train with the options of a trial; return whether it can be finished."""
        try:
            whole = self._laboratory.whole(number, self.config_of(number))
        except GivenUp as reason:
            if not number:
                raise
            _log.warning("Trial %d is given up: %s", number + 1, reason)
            return False
        self.wholes[number] = whole
        self.rows += rows_after(self._laboratory.data, self._config, whole.periods)
        return True

    def _round(self, number: int, center: int, reach: float, trials: int, deadline: float | None) -> int | None:
        """Do the trials of a round, at least the first; return the best one, None if that is the first."""
        study = self._study(number)
        config = self.config_of(center)
        values = varied(config, finds_items=self._finds_items)
        space = search_space(values, reach)
        periods = max(round(self.wholes[center].best_period / _SHARE_OF_PERIODS), 1)
        while (done := len(_finished(study))) < trials:
            if not done:
                # Added when it is done, so that it is the first after a kill too.
                score = self._laboratory.short(center, config, periods)
                study.add_trial(create_trial(params=values, distributions=space, value=score))
            else:
                # From the number of trials, so that one that was killed gets the same options again.
                seed = self._config.seed + number * _TRIALS + done
                study.sampler = optuna.samplers.TPESampler(
                    seed=seed, multivariate=True, n_startup_trials=_RANDOM_TRIALS
                )
                trial = study.ask(space)
                try:
                    study.tell(trial, self._laboratory.short(center, with_values(config, trial.params), periods))
                except GivenUp as reason:
                    _log.warning("A trial is given up: %s", reason)
                    study.tell(trial, state=TrialState.PRUNED)
            if deadline is not None and time.monotonic() >= deadline:
                break
        first = len(self.trials)
        self.trials += [Trial(number, dict(of.params), of.value) for of in _finished(study)]
        scores = {n: of.score for n, of in enumerate(self.trials[first:], first) if of.score is not None}
        self.rows += len(scores) * rows_after(self._laboratory.data, config, periods)
        best = max(scores, key=lambda n: scores[n])
        return None if best == first else best

    def _study(self, number: int) -> optuna.Study:
        """Open the journal at a round."""
        study = optuna.create_study(
            storage=self._storage, study_name=f"{self._name}-{number}", load_if_exists=True, direction="maximize"
        )
        # A trial that a killed search left unfinished does not count.
        for trial in study.get_trials(states=[TrialState.RUNNING]):
            study.tell(trial.number, state=TrialState.FAIL)
        return study


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count towards the limit."""
    return study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED])
