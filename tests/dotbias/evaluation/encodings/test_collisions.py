"""Compares measured collisions with brute force on small tables and with theory on large ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dotbias.evaluation.encodings.collisions import expected_collisions, measure_encodings, share_an_embedding
from dotbias.evaluation.shard_rows import read_train
from tests.trainer.conftest import SIDES, random_rows
from tests.trainer.datasets import write_dataset
from trainer.config import HashingConfig, TrainerConfig
from trainer.data.dataset import Dataset
from trainer.data.lookup import hash_tokens


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 20), max_size=30))
def test_who_shares_an_embedding_against_brute_force(rows: list[int]) -> None:
    expected = [rows.count(row) > 1 for row in rows]
    np.testing.assert_array_equal(share_an_embedding(np.array(rows, np.int64)), expected)


@pytest.mark.parametrize("load", [0.25, 1.0, 4.0])
def test_hashed_ids_collide_as_in_theory(load: float) -> None:
    ids = 50_000
    num_bins = int(ids / load)
    measured = share_an_embedding(hash_tokens(np.arange(ids), num_bins).numpy()).mean()
    assert measured == pytest.approx(1 - np.exp(-load), abs=0.01)
    assert expected_collisions(ids, num_bins) == pytest.approx(1 - np.exp(-load), abs=1e-4)


@pytest.mark.parametrize("string_ids", [False, True])
@pytest.mark.parametrize("num_oov_buckets", [1, 3])
def test_shares_of_a_dataset_against_counting(tmp_path: Path, string_ids: bool, num_oov_buckets: int) -> None:
    rows, evaluation = random_rows(300, 1, string_ids), random_rows(60, 2, string_ids)
    write_dataset(tmp_path / "tokens", rows, evaluation, SIDES, hashed=list(SIDES))
    write_dataset(
        tmp_path / "mixed",
        rows,
        evaluation,
        SIDES,
        hashed=["movieId"],
        frequency_threshold=8,
        num_oov_buckets=num_oov_buckets,
    )
    bins = {name: {"num_bins": 1} for name in SIDES}
    train = read_train(
        Dataset.open(str(tmp_path / "tokens"), TrainerConfig.model_validate({"hashing": bins})), lambda *_: None
    )
    config = TrainerConfig(hashing={"movieId": HashingConfig(num_bins=20)})
    measured = measure_encodings(Dataset.open(str(tmp_path / "mixed"), config), train)

    users, movies = Counter(rows["userId"]), Counter(rows["movieId"])
    bin_of = {movie: int(hash_tokens(np.array([movie]), 20)[0]) for movie in movies}
    bucket_of = {
        user: int(hash_tokens(np.array([user]), num_oov_buckets)[0]) for user, count in users.items() if count < 8
    }
    for name, counts, place_of in (("userId", users, bucket_of), ("movieId", movies, bin_of)):
        crowd = Counter(place_of.values())
        colliding = [token for token, place in place_of.items() if crowd[place] > 1]
        found = measured[name]
        assert colliding and found.distinct_ids == len(counts)
        assert found.colliding_ids == pytest.approx(len(colliding) / len(counts))
        assert found.colliding_rows == pytest.approx(sum(counts[token] for token in colliding) / 300)
    known = {user for user, count in users.items() if count >= 8}
    assert measured["userId"].oov_rows == {
        "train": pytest.approx(sum(user not in known for user in rows["userId"]) / 300),
        "eval": pytest.approx(sum(user not in known for user in evaluation["userId"]) / 60),
    }
    assert measured["userId"].expected_colliding_ids is None and measured["movieId"].oov_rows is None
    assert measured["movieId"].table_rows == 20


def test_with_an_empty_vocabulary_all_ids_are_one(tmp_path: Path) -> None:
    rows = random_rows(50, 1)
    write_dataset(tmp_path / "tokens", rows, rows, SIDES, hashed=list(SIDES))
    write_dataset(tmp_path / "empty", rows, rows, SIDES, frequency_threshold=99)
    bins = TrainerConfig.model_validate({"hashing": {name: {"num_bins": 1} for name in SIDES}})
    train = read_train(Dataset.open(str(tmp_path / "tokens"), bins), lambda *_: None)
    measured = measure_encodings(Dataset.open(str(tmp_path / "empty"), TrainerConfig()), train)
    assert measured["userId"].colliding_ids == measured["userId"].colliding_rows == 1
