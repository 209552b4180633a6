"""Chooses between the given configuration and the best trials, on rows that the trials were not chosen by.

The best of many trials is partly the luckiest on the eval rows. So the best few are trained again on folds of the train
rows, next to the given configuration, with other seeds. After each fold the better half of them is left. The last one
is chosen if its gain over all folds is larger than chance explains; else the configuration stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.config import TrainerConfig
from trainer.loop.refit import refit_config
from trainer.search.evidence import Gain, gain
from trainer.search.folds import fold
from trainer.search.trainings import MOST_ROWS, Answers, Laboratory

FINALISTS = 2
_FOLDS, _PARTS = 3, 4
# A gain has to be so many standard errors, which chance exceeds once in twenty times, and so much in all.
_ERRORS, _LEAST = 1.64, 0.001


@dataclass(frozen=True)
class Choice:
    """Holds the gains on folds by number of trial, and the number chosen, 0: the given configuration.

    `rows` is how many the trainings on folds have read.
    """

    gains: dict[int, Gain]
    chosen: int
    rows: int

    @property
    def gain(self) -> Gain | None:
        """Return the gain of the trial that was chosen, else the largest one; None if none was trained again."""
        return self.gains[self.chosen] if self.chosen else max(self.gains.values(), default=None)


def choose(laboratory: Laboratory, configs: Mapping[int, TrainerConfig]) -> Choice:
    """Choose one of some trials: their configurations by their numbers; 0 is the given one."""
    data = laboratory.data
    left = [number for number in configs if number]
    answers: dict[int, list[Answers]] = {number: [] for number in configs}
    gains: dict[int, Gain] = {}
    for part in range(_FOLDS):
        if not left:
            break
        part_of_rows = fold(data, part, max(_PARTS, data.split("train").rows // MOST_ROWS))
        for number in [0, *left]:
            config = refit_config(configs[number], data, part_of_rows)
            config = config.model_copy(update={"seed": config.seed + part + 1})
            answers[number].append(laboratory.again(f"trial-{number}-{part}", part_of_rows, config))
        for number in left:
            gains[number] = _gain(answers[0], answers[number])
        left = sorted((n for n in left if gains[n].value > 0), key=lambda n: -gains[n].value)[: (len(left) + 1) // 2]
    chosen = 0
    if left and gains[left[0]].value > max(_ERRORS * gains[left[0]].error, _LEAST):
        chosen = left[0]
    return Choice(gains, chosen, rows=sum(answer.rows for of_trial in answers.values() for answer in of_trial))


def _gain(first: Sequence[Answers], other: Sequence[Answers]) -> Gain:
    return gain([(one.scores, two.scores, one.users) for one, two in zip(first, other, strict=True)])
