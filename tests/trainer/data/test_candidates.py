from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.trainer.conftest import random_rows
from tests.trainer.datasets import write_dataset
from trainer.config import SoftmaxConfig, TrainerConfig
from trainer.data.candidates import Candidates
from trainer.data.dataset import Dataset
from trainer.data.reader import Shuffle, read_batches

CONFIG = TrainerConfig(softmax=SoftmaxConfig(candidates=7))


def batches(data: Dataset, shuffle: Shuffle | None = None, **options: Any) -> list[tuple[Any, ...]]:
    """Returns (users, items with candidates, labels and weights) of each batch."""
    append = Candidates.of(data, CONFIG).append
    return [
        (features["userId"].numpy(), features["movieId"].numpy(), *(part.numpy() for part in rest))
        for features, *rest in read_batches(data, "train", 64, shuffle=shuffle, append=append, **options)
    ]


def test_candidates_follow_the_rows_of_each_batch(dataset: Dataset) -> None:
    plain = list(read_batches(dataset, "train", 64, shuffle=Shuffle(seed=5, epochs=2)))
    drawn = batches(dataset, Shuffle(seed=5, epochs=2))
    for (features, label), (user, item, same_label) in zip(plain, drawn, strict=True):
        np.testing.assert_array_equal(user, features["userId"])
        np.testing.assert_array_equal(item[:-7], features["movieId"])
        np.testing.assert_array_equal(same_label, label)
    # Another set for each batch of each epoch, over all items.
    candidates = {tuple(item[-7:]) for _, item, _ in drawn}
    assert len(candidates) == len(drawn)
    counts = np.bincount(np.ravel([*candidates]), minlength=dataset.table_rows["movieId"])
    assert len(counts) == dataset.table_rows["movieId"] and counts.min() > 0


def test_after_an_interruption_the_same_candidates_are_drawn(dataset: Dataset) -> None:
    whole = batches(dataset, Shuffle(seed=5, epochs=3), static_shape=True)
    steps = len(whole) // 3
    rest = batches(dataset, Shuffle(seed=5, epochs=3, first_epoch=1, skip_steps=4), static_shape=True)
    assert len(rest) == 2 * steps - 4
    for one, other in zip(whole[steps + 4 :], rest, strict=True):
        for values, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(values, same)


def test_a_candidate_brings_its_other_features(tmp_path: Path) -> None:
    rows = random_rows(500, 3)
    rows["genre"] = [item // 1000 % 4 for item in rows["movieId"]]
    sides = {"userId": "user", "movieId": "item", "genre": "item"}
    write_dataset(tmp_path, rows, random_rows(0, 4) | {"genre": []}, sides)
    data = Dataset.open(str(tmp_path), CONFIG)
    known = {}
    for features, _ in read_batches(data, "train", 64):
        known |= dict(zip(features["movieId"].numpy().tolist(), features["genre"].numpy().tolist(), strict=True))
    append = Candidates.of(data, CONFIG).append
    for features, _ in read_batches(data, "train", 64, append=append):
        pairs = zip(features["movieId"].numpy().tolist(), features["genre"].numpy().tolist(), strict=True)
        # An OOV item, of which there are no rows, has the OOV bucket of the other feature.
        assert all(genre == known.get(movie, 4) for movie, genre in pairs)
