"""Searches for better options of the trainer: trials train on the train split and are judged on the eval split.

```
<directory>/
  journal.log    every trial and its periods, written by Optuna; a stopped search goes on from here
  trials.csv     a line for each trial, the best first
  report.html    how much each option mattered, and each trial by its options
```

A trial trains as `train` does, but without checkpoints: a kill costs one trial. Only trials among the worst quarter
after the same number of periods are given up (pruned), since the best options often start slowly. Sampling follows
J. Bergstra et al., "Algorithms for Hyper-Parameter Optimization" (2011), multivariate.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
import tensorflow as tf
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.manifest import DotbiasError, Progress, fingerprint, join
from trainer.build import compiled_model
from trainer.config import TrainerConfig, set_dotted
from trainer.data.cache import close_cache, open_cache
from trainer.data.dataset import Dataset
from trainer.data.periods import Periods
from trainer.devices.cluster import num_workers
from trainer.devices.strategy import make_strategy, wants_tpu
from trainer.loop.checkpoint import improves, more_is_better
from trainer.loop.defaults import objective_of, with_automatic_values
from trainer.loop.evaluate import training_loss
from trainer.loop.fit import average_weights, fit_periods, make_average, monitored_metric, ranking_task
from trainer.loop.prepare import check_that_it_fits, prepare
from trainer.loop.ranking import MeasureRanking, RankingTask
from trainer.model.tables import Counts, index_counts
from trainer.output.result import training_fingerprint
from trainer.search.report import write_report

JOURNAL_NAME = "journal.log"
# Trials before anything is pruned, and periods of a trial before it can be.
_STARTUP_TRIALS = 5
_WARM_UP_PERIODS = 8
PRUNER = optuna.pruners.PercentilePruner(75.0, n_startup_trials=_STARTUP_TRIALS, n_warmup_steps=_WARM_UP_PERIODS)
# With fewer units, vectors take a random number of epochs to grow from 0, so a refit may need more than the trial did.
_DIMENSIONS = (16, 32, 64, 128)
# The other options are searched between a quarter of the configured value and four times as much.
_RANGE = 4
_CANDIDATES = "softmax.candidates"
# A search is centred here if the configured value is 0.
_L2, _BIAS_L2_FACTOR = 0.1, 1.0
_log = logging.getLogger("trainer.train")


@dataclass(frozen=True)
class Tuned:
    """Holds the result of a search: the eval metric `monitor` of the best trial and of the first, the configuration.

    `values` are the options of the best trial by dotted key, e.g. {"optimizer.learning_rate": 0.004}.
    """

    monitor: str
    best: float
    first: float
    values: dict[str, Any]
    trials: int
    pruned: int


class _Report(tf.keras.callbacks.Callback):
    """Reports each period to a trial, stops it early as `train` would, and prunes it if it is behind."""

    def __init__(self, trial: Trial, monitor: str, patience: int) -> None:
        super().__init__()
        self._trial = trial
        self._monitor = monitor
        self._patience = patience
        self.best: float | None = None
        self.best_period = 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        value = float(logs[f"val_{self._monitor}"])
        if not tf.math.is_finite(training_loss(logs)) or not tf.math.is_finite(value):
            raise optuna.TrialPruned("the loss is not finite")
        if improves(self._monitor, value, self.best):
            self.best, self.best_period = value, epoch + 1
        elif epoch + 1 - self.best_period >= self._patience:
            self.model.stop_training = True
        # The best so far, since trials are compared by their best period.
        assert self.best is not None
        self._trial.report(self.best, epoch + 1)
        if self._trial.should_prune():
            raise optuna.TrialPruned


def tune(dataset: str, directory: str, config: TrainerConfig, progress: Progress | None = None) -> Tuned:
    """Search until the limits of `config.tune`; continue an earlier search of the same dataset and configuration.

    The first trial is the configuration itself. Only the splits train and eval are read.

    Args:
        dataset: directory with a manifest.
        directory: local; made if it is not there.
        config: the `trainer` section; `tune` holds the limits.
        progress: called with ("tune", rows trained, None, {"trial": number, "best": eval metric}).

    Raises:
        DotbiasError: there is no eval split to judge by, training cannot succeed, or no trial could be finished.
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
    tf.io.gfile.makedirs(directory)
    study = _study(join(directory, JOURNAL_NAME), data, config, monitor, finds_items=finds_items)
    done = _finished(study)
    _log.info("Tuning: %d of %d trials are done.", len(done), config.tune.trials)
    # Hashed tokens are counted in a pass over the train rows, so once for all trials.
    counts = index_counts(data)
    data = open_cache(data, config.cache, directory)
    rows = 0

    def objective(trial: Trial) -> float:
        report = _Report(trial, monitor, config.early_stopping.patience)

        def tell(more: int) -> None:
            nonlocal rows
            rows += more
            if progress is not None:
                numbers = {"trial": trial.number + 1.0}
                if study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
                    numbers["best"] = study.best_value
                progress("tune", rows, None, numbers)

        _run(data, suggest(trial, config, finds_items=finds_items), strategy, counts, task, report, tell)
        trial.set_user_attr("best_period", report.best_period)
        assert report.best is not None
        return report.best

    deadline = None if config.tune.minutes is None else time.monotonic() + 60 * config.tune.minutes
    try:
        while len(_finished(study)) < config.tune.trials:
            study.optimize(objective, n_trials=1, gc_after_trial=True)
            if deadline is not None and time.monotonic() >= deadline:
                break
    finally:
        close_cache(data)
    tuned = _result(study, monitor)
    write_report(directory, study, monitor)
    return tuned


def suggest(trial: Trial, config: TrainerConfig, *, finds_items: bool = False) -> TrainerConfig:
    """Return the configuration of a trial: other values for the options whose best values differ most between logs."""
    values = {
        key: getattr(trial, f"suggest_{kind}")(key, *where, **how)
        for key, (kind, where, how) in search_space(config, finds_items=finds_items).items()
    }
    return with_values(config, values)


def search_space(
    config: TrainerConfig, *, finds_items: bool = False
) -> dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """Return how Optuna suggests a value, by dotted key: the method, its arguments, its keywords."""
    start = starting_values(config, finds_items=finds_items)
    dimensions = tuple(sorted({*_DIMENSIONS, start.pop("embedding_dim")}))
    categorical: dict[str, tuple[Any, ...]] = {"embedding_dim": dimensions}
    if _CANDIDATES in start:
        candidates = start.pop(_CANDIDATES)
        categorical[_CANDIDATES] = (max(candidates // _RANGE, 1), candidates, candidates * _RANGE)
    around = {key: ("float", (value / _RANGE, value * _RANGE), {"log": True}) for key, value in start.items()}
    return {**around, **{key: ("categorical", (values,), {}) for key, values in categorical.items()}}


def starting_values(config: TrainerConfig, *, finds_items: bool = False) -> dict[str, Any]:
    """Return the values of the first trial by dotted key; `config` has automatic values filled in.

    `finds_items`: whether the objective is `softmax`.
    """
    of_labels = {"l2": config.l2 or _L2, "bias_l2_factor": config.bias_l2_factor or _BIAS_L2_FACTOR}
    of_lists = {"softmax.temperature": config.softmax.temperature, _CANDIDATES: config.softmax.candidates}
    return {
        **(of_lists if finds_items else of_labels),
        "embedding_dim": config.embedding_dim,
        "optimizer.learning_rate": config.optimizer.learning_rate,
    }


def with_values(config: TrainerConfig, values: dict[str, Any]) -> TrainerConfig:
    """Return a configuration with other values, by dotted key."""
    changed = config.model_dump()
    for key, value in values.items():
        set_dotted(changed, key, value)
    return TrainerConfig.model_validate(changed)


def _study(journal: str, data: Dataset, config: TrainerConfig, monitor: str, *, finds_items: bool) -> optuna.Study:
    """Open the search of this dataset and configuration, with its trials in the journal."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {key: list(map(str, how)) for key, how in search_space(config, finds_items=finds_items).items()}
    name = fingerprint({"training": training_fingerprint(data, config), "space": space})
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(journal)),
        study_name=name,
        load_if_exists=True,
        direction="maximize" if more_is_better(monitor) else "minimize",
        pruner=PRUNER,
    )
    # A trial that a killed search left unfinished does not count.
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
    # After an interruption, do not draw the same numbers again.
    seed = config.seed + len(study.trials)
    study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=_STARTUP_TRIALS)
    if not _finished(study):
        study.enqueue_trial(starting_values(config, finds_items=finds_items))
    return study


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count towards the limit."""
    return study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED])


def _run(
    data: Dataset,
    config: TrainerConfig,
    strategy: tf.distribute.Strategy,
    counts: Mapping[str, Counts],
    task: RankingTask | None,
    report: _Report,
    tell: Callable[[int], None],
) -> None:
    """Train once; `tell` gets the rows of each period."""
    try:
        check_that_it_fits(data, config, strategy)
    except DotbiasError as error:
        _log.warning("A trial is given up: %s", error)
        raise optuna.TrialPruned(str(error)) from error
    tf.keras.utils.set_random_seed(config.seed)
    model = compiled_model(data, config, strategy, counts)
    periods = Periods.of(data, config, num_workers())
    callbacks = [
        *([] if task is None else [MeasureRanking(task)]),
        average_weights(model, data, config, make_average(model, config, strategy)),
        tf.keras.callbacks.LambdaCallback(on_epoch_end=lambda period, _: tell(periods.rows_of(period))),
        report,
    ]
    try:
        fit_periods(model, data, config, strategy, callbacks, periods)
    finally:
        # Freed now, since the model of the next trial is as large.
        model.release()
        del model, callbacks
        tf.keras.backend.clear_session()
        gc.collect()


def _result(study: optuna.Study, monitor: str) -> Tuned:
    trials = _finished(study)
    complete = sorted((trial for trial in trials if trial.state == TrialState.COMPLETE), key=lambda trial: trial.number)
    if not complete:
        raise DotbiasError("No trial was finished; give `trainer.tune` more minutes, or try a lower learning rate.")
    first, best = complete[0].value, study.best_trial
    assert first is not None and best.value is not None
    return Tuned(monitor, best.value, first, dict(best.params), len(trials), len(trials) - len(complete))
