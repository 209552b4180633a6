from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.trainer.data.test_reader import rows_in_files, rows_of
from trainer.data.cache import close_cache, open_cache
from trainer.data.dataset import Dataset
from trainer.data.reader import Shuffle, read_batches
from trainer.search.folds import fold, with_fewer_eval_rows, without_eval_rows


# 550 train rows in six shards: parts that end within a shard, and two in one shard.
@pytest.mark.parametrize("of", [4, pytest.param(11, marks=pytest.mark.slow)])
def test_the_folds_hold_each_train_row_out_once(dataset: Dataset, of: int) -> None:
    held_out: list[object] = []
    everything = Counter(rows_in_files(dataset, "train")) + Counter(rows_in_files(dataset, "eval"))
    for number in range(of):
        part = fold(dataset, number, of)
        rows = rows_of(read_batches(part, "eval", 64))
        assert len(rows) == part.split("eval").rows and 0 <= len(rows) - 550 // of <= 1
        held_out += rows
        if number == 1:
            shuffled = rows_of(read_batches(part, "train", 64, shuffle=Shuffle(seed=5, epochs=1)))
            assert len(shuffled) == part.split("train").rows
            assert Counter(shuffled) + Counter(rows) == everything
    assert held_out == rows_in_files(dataset, "train")


def test_a_cache_serves_all_folds(dataset: Dataset, tmp_path: Path) -> None:
    cached = open_cache(dataset, "disk", str(tmp_path))
    for number in range(2):
        read, expected = (rows_of(read_batches(fold(data, number, 4), "eval", 64)) for data in (cached, dataset))
        assert read == expected
    close_cache(cached)


def test_fewer_eval_rows_are_the_first_ones(dataset: Dataset) -> None:
    assert with_fewer_eval_rows(dataset, 90) is dataset
    rows = rows_of(read_batches(with_fewer_eval_rows(dataset, 40), "eval", 64))
    assert rows == rows_in_files(dataset, "eval")[:40]


def test_without_eval_rows_the_train_rows_stay(dataset: Dataset) -> None:
    part = without_eval_rows(fold(dataset, 1, 4))
    assert part.split("train") == fold(dataset, 1, 4).split("train") and not part.split("eval").rows
