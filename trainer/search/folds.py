"""Divides the rows of a dataset into train and eval rows in other ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline.manifest import Shard, Split
from trainer.data.dataset import Dataset, ShardPart
from trainer.loop.refit import with_eval_rows

_NO_ROWS = Split(rows=0, positive_rows=0, label_mean=None, shards=[])


def fold(data: Dataset, number: int, of: int) -> Dataset:
    """Return the dataset with other eval rows: the part `number`, from 0, of `of` equal parts of the train rows.

    Its train rows are all others, those of the eval split among them. The pipeline has shuffled the shards, so a part
    of them is a random sample. Vocabularies stay those of the dataset's train rows. Mean label and share of positive
    rows are those of all rows.
    """
    rows = data.split("train").rows
    first, end = (rows * part // of for part in (number, number + 1))
    shards = data.split("train").shards
    rest = [*_between(shards, 0, first), *_between(shards, end, rows), *data.split("eval").shards]
    everything = with_eval_rows(data).split("train")
    splits = {"train": _part(everything, rest), "eval": _part(everything, list(_between(shards, first, end)))}
    return replace(data, manifest=data.manifest.model_copy(update={"splits": splits}))


def without_eval_rows(data: Dataset) -> Dataset:
    """Return the dataset with the train split alone."""
    splits = {"train": data.split("train"), "eval": _NO_ROWS}
    return replace(data, manifest=data.manifest.model_copy(update={"splits": splits}))


def with_fewer_eval_rows(data: Dataset, most: int) -> Dataset:
    """Return the dataset with the first `most` eval rows, a random sample of them, if there are more."""
    split = data.split("eval")
    if split.rows <= most:
        return data
    splits = {"train": data.split("train"), "eval": _part(split, list(_between(split.shards, 0, most)))}
    return replace(data, manifest=data.manifest.model_copy(update={"splits": splits}))


def _between(shards: Sequence[Shard], first: int, end: int) -> Iterator[Shard]:
    """Yield the parts of shards that hold the rows from `first` to `end`, counted over all shards."""
    start = 0
    for shard in shards:
        low, high = max(first - start, 0), min(end - start, shard.rows)
        start += shard.rows
        if high - low == shard.rows:
            yield shard
        elif low < high:
            yield ShardPart(**{**shard.model_dump(), "rows": high - low}, first=low, file_rows=shard.rows)


def _part(split: Split, shards: list[Shard]) -> Split:
    rows = sum(shard.rows for shard in shards)
    return Split(
        rows=rows,
        positive_rows=round(split.positive_rows * rows / split.rows),
        label_mean=split.label_mean,
        shards=shards,
    )
