"""Searches for better options of the trainer: trials train on the train split and are judged on the eval split.

```
<directory>/
  journal.log    the trials, written by Optuna; a stopped search goes on from here
  <search>/      weights and results of whole trainings, and of those that the choice is made by
  trials.csv     a line for each trial
  report.html    a plot of each option
```

`rounds` looks for better options than the given ones, and `finals` chooses between them. A kill costs one training, and
the search goes on to the same result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from pipeline.manifest import DotbiasError, Progress, fingerprint, join
from trainer.config import TrainerConfig
from trainer.data.cache import close_cache, open_cache
from trainer.data.dataset import Dataset
from trainer.devices.strategy import make_strategy, wants_tpu
from trainer.loop.defaults import objective_of, with_automatic_values
from trainer.loop.fit import monitored_metric, ranking_task
from trainer.loop.prepare import prepare
from trainer.model.tables import index_counts
from trainer.output.result import training_fingerprint
from trainer.search.evidence import Gain
from trainer.search.finals import FINALISTS, choose
from trainer.search.report import write_report
from trainer.search.rounds import Search
from trainer.search.space import search_space, varied
from trainer.search.trainings import Laboratory, draw_task, rows_after

JOURNAL_NAME = "journal.log"


@dataclass(frozen=True)
class Tuned:
    """Holds the result of a search.

    Attributes:
        metrics: of the given configuration on the eval split, before calibration.
        values: the chosen options by dotted key, e.g. {"optimizer.learning_rate": 0.004}; empty: the given ones stay.
        gain: of the best trial over the given configuration on other rows; None if no trial was better on the eval
            split.
        trials: how many there were.
        given_up: how many of them could not be finished.
        cost: the rows that all trainings had, as a multiple of those of the first.
    """

    metrics: dict[str, float]
    values: dict[str, Any]
    gain: Gain | None
    trials: int
    given_up: int
    cost: float


def tune(dataset: str, directory: str, config: TrainerConfig, progress: Progress | None = None) -> Tuned:
    """Search until the limits of `config.tune`; continue an earlier search of the same dataset and configuration.

    The first trial is the configuration itself. Only the splits train and eval are read.

    Args:
        dataset: directory with a manifest.
        directory: local; made if it is not there.
        config: the `trainer` section; `tune` holds the limits.
        progress: called with ("tune", rows trained, None, {"training": number of the training}).

    Raises:
        DotbiasError: there is no eval split to judge by, or training with the configuration cannot succeed.
    """
    if "://" in directory:
        raise DotbiasError(f"The journal of a search is kept on a local disk. Received: {directory}.")
    data = Dataset.open(dataset, config)
    if not data.split("eval").rows:
        raise DotbiasError(f"{dataset} has no eval rows to judge trials by; set `pipeline.split.eval_fraction`.")
    if wants_tpu(config.strategy):
        raise DotbiasError(
            "A search trains many models in one process, and a TPU takes one. Set `trainer.strategy: gpu` or cpu."
        )
    strategy = make_strategy(config.strategy)
    config = with_automatic_values(config, data)
    prepare(data, config, strategy)
    task = ranking_task(data, config)
    monitor = monitored_metric(data, config, can_be_ranked=task is not None)
    assert monitor is not None
    finds_items = objective_of(config, data) == "softmax"
    if finds_items and task is None:
        # Says why there is none.
        draw_task(data, config)
    space = {key: repr(of) for key, of in search_space(varied(config, finds_items=finds_items), 1.0).items()}
    name = fingerprint({"training": training_fingerprint(data, config), "space": space})
    own = join(directory, name[:12])
    tf.io.gfile.makedirs(own)
    # Hashed tokens are counted in a pass over the train rows, so once for all trials.
    counts = index_counts(data)
    data = open_cache(data, config.cache, directory)
    rows = 0

    def tell(more: int) -> None:
        nonlocal rows
        rows += more
        if progress is not None:
            progress("tune", rows, None, {"training": laboratory.trainings})

    laboratory = Laboratory(data, strategy, counts, task, monitor, own, tell)
    search = Search(laboratory, config, finds_items=finds_items, journal=join(directory, JOURNAL_NAME), name=name)
    try:
        search.run()
        choice = choose(laboratory, {number: search.config_of(number) for number in (0, *search.best(FINALISTS))})
    finally:
        close_cache(data)
    write_report(directory, search, choice)
    first = search.wholes[0]
    return Tuned(
        metrics=first.metrics,
        values=search.trials[choice.chosen].values if choice.chosen else {},
        gain=choice.gain,
        trials=len(search.trials),
        given_up=sum(trial.score is None for trial in search.trials),
        cost=(search.rows + choice.rows) / rows_after(data, config, first.periods),
    )
