"""Decides the split of each row.

`random` is a hash of the row's tokens and timestamp, keyed by the seed. So a row stays in its split whatever file or
order it is read in, and identical rows stay together. The label is left out of the hash: otherwise two rows that differ
only in their label could be in different splits, and train would know the tokens and time of an eval row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import PipelineConfig, timestamp_of
from pipeline.input.interactions import LABEL, Interactions
from pipeline.rows.randomness import Purpose, generator
from pipeline.rows.token_hash import TOKEN_TYPES, keyed, mix, row_hashes, token_hashes

# Each bundle sends a sample; so many workers merge them before the last one does.
_FANOUT = 64
# Rows of the sample that the cut in time is found from. The cut is exact for logs of up to this many rows; for longer
# ones, the share of eval is off by a few thousandths.
SAMPLE_ROWS = 1 << 17


def is_eval(config: PipelineConfig, cut: int | None, batch: Interactions) -> npt.NDArray[np.bool_]:
    """Returns a mask `[rows]` of the eval rows of a batch; `cut` is for `method: time`."""
    # Several steps ask for it.
    key = (config.split, config.seed, cut)
    if key not in batch.memo:
        batch.memo[key] = _is_eval(config, cut, batch.rows)
    mask: npt.NDArray[np.bool_] = batch.memo[key]
    return mask


def _is_eval(config: PipelineConfig, cut: int | None, rows: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    split = config.split
    if split.method == "time":
        assert cut is not None and config.timestamp_column is not None
        return rows[config.timestamp_column].to_numpy() >= cut
    if split.method == "hash":
        assert split.column is not None
        tokens = rows[split.column].cast(TOKEN_TYPES[config.columns[split.column]])
        # With the seed, so that another seed gives another split.
        hashes = mix(token_hashes(tokens) ^ np.uint64(config.seed))
    else:
        hashes = keyed(row_hashes(rows.select([name for name in rows.schema.names if name != LABEL])), config.seed)
    return hashes < np.uint64(int(split.eval_fraction * 2**64))


class CutInTime(beam.PTransform):
    """Finds the timestamp where the eval split begins, so that it has the last `eval_fraction` of the rows.

    The cut is found from a random sample: each row draws a number, and the rows with the smallest are taken.
    """

    def __init__(self, config: PipelineConfig) -> None:
        super().__init__()
        self._config = config

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        eval_fraction = self._config.split.eval_fraction
        return (
            batches
            | "Sample" >> beam.FlatMap(_sample_timestamps, self._config)
            | "Smallest" >> beam.CombineGlobally(_smallest).with_fanout(_FANOUT)
            | "Quantile" >> beam.Map(lambda sample: quantile_cut(sample[1], eval_fraction))
        )


def given_cut(config: PipelineConfig) -> int | None:
    """Returns the cut that the configuration gives; None if it gives none."""
    return None if config.split.since is None else timestamp_of(config.split.since, config.timestamp_unit)


def needs_sample(config: PipelineConfig) -> bool:
    """Returns whether `CutInTime` has to find the cut."""
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
    """Returns the least timestamp that at most `eval_fraction` of the rows reach; equal timestamps stay together.

    If more rows than that have the last timestamp, the cut lies after all rows and eval is empty.

    >>> quantile_cut(np.array([10, 20, 30, 40, 50]), eval_fraction=0.4)
    40
    >>> quantile_cut(np.array([10, 20, 40, 40, 50]), eval_fraction=0.4)
    50
    """
    ordered = np.sort(timestamps)
    wanted = int(len(ordered) * eval_fraction)
    if wanted == 0:
        return int(ordered[-1]) + 1 if len(ordered) else 0
    cut = ordered[len(ordered) - wanted]
    if len(ordered) > wanted and ordered[len(ordered) - wanted - 1] == cut:
        # Rows of this timestamp are on both sides, so all of them stay in train.
        later = ordered[ordered > cut]
        return int(later[0]) if len(later) else int(cut) + 1
    return int(cut)
