"""Which split a row belongs to: decided row by row, the same whoever asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import numpy.typing as npt

from pipeline.config import PipelineConfig, timestamp_of
from pipeline.input.interactions import Interactions
from pipeline.rows.randomness import Purpose, generator
from pipeline.rows.token_hash import TOKEN_TYPES, mix, token_hashes

# Rows that stand for all in the choice of the time from which on rows are of eval. Up to so many rows it is exact; with
# more, the share of eval is off by a few thousandths.
SAMPLE_ROWS = 1 << 17


def is_eval(config: PipelineConfig, cut: int | None, batch: Interactions) -> npt.NDArray[np.bool_]:
    """`[rows]`, True where a row of the batch is of the eval split; `cut` is for `method: time`."""
    split, rows = config.split, batch.rows
    if split.method == "time":
        assert cut is not None and config.timestamp_column is not None
        return rows[config.timestamp_column].to_numpy() >= cut
    if split.method == "hash":
        assert split.column is not None
        tokens = rows[split.column].cast(TOKEN_TYPES[config.columns[split.column]])
        # With the seed, so that another seed gives another split.
        hashes = mix(token_hashes(tokens) ^ np.uint64(config.seed))
        return hashes < np.uint64(int(split.eval_fraction * 2**64))
    return generator(config.seed, Purpose.SPLIT, batch.file, batch.offset).random(len(rows)) < split.eval_fraction


class CutInTime(beam.PTransform):
    """`Interactions` -> the timestamp from which on rows are of eval, for the last `eval_fraction` of all rows.

    A sample of the rows stands for all: those with the smallest of numbers that are drawn for each.
    """

    def __init__(self, config: PipelineConfig) -> None:
        super().__init__()
        self._config = config

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        eval_fraction = self._config.split.eval_fraction
        return (
            batches
            | "Sample" >> beam.FlatMap(_sample_timestamps, self._config)
            | "Smallest" >> beam.CombineGlobally(_smallest)
            | "Quantile" >> beam.Map(lambda sample: quantile_cut(sample[1], eval_fraction))
        )


def given_cut(config: PipelineConfig) -> int | None:
    """The cut that the configuration gives itself; None for a split that needs none."""
    return None if config.split.since is None else timestamp_of(config.split.since, config.timestamp_unit)


def needs_sample(config: PipelineConfig) -> bool:
    """Whether the cut has to be found by `CutInTime`."""
    return config.split.method == "time" and config.split.since is None


_Sample = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]


def _sample_timestamps(batch: Interactions, config: PipelineConfig) -> Iterator[_Sample]:
    timestamps = batch.rows[config.timestamp_column].to_numpy()
    draws = generator(config.seed, Purpose.SAMPLE, batch.file, batch.offset).random(len(timestamps))
    yield _smallest([(draws, timestamps)])


def _smallest(samples: Iterable[_Sample]) -> _Sample:
    held = [(np.empty(0), np.empty(0, np.int64)), *samples]
    draws, timestamps = (np.concatenate([sample[part] for sample in held]) for part in (0, 1))
    if len(draws) > SAMPLE_ROWS:
        chosen = np.argpartition(draws, SAMPLE_ROWS)[:SAMPLE_ROWS]
        draws, timestamps = draws[chosen], timestamps[chosen]
    return draws, timestamps


def quantile_cut(timestamps: npt.NDArray[np.int64], eval_fraction: float) -> int:
    """The least timestamp from which on not more than `eval_fraction` of the rows lie; equal ones are on one side.

    If even those of the last moment are more, nothing is of eval: the cut then lies after all rows.
    """
    ordered = np.sort(timestamps)
    wanted = int(len(ordered) * eval_fraction)
    if wanted == 0:
        return int(ordered[-1]) + 1 if len(ordered) else 0
    cut = ordered[len(ordered) - wanted]
    if len(ordered) > wanted and ordered[len(ordered) - wanted - 1] == cut:
        # The moment is cut through, so all of it stays in train.
        later = ordered[ordered > cut]
        return int(later[0]) if len(later) else int(cut) + 1
    return int(cut)
