from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.manifest import Label, Split
from trainer.config import SoftmaxConfig, TrainerConfig
from trainer.data.dataset import Dataset
from trainer.loop.defaults import (
    automatic_batch_size,
    automatic_bias_l2_factor,
    automatic_l2,
    automatic_learning_rate,
    automatic_temperature,
    objective_of,
    vector_l2_factor,
    with_automatic_values,
)


@pytest.mark.parametrize(
    ("rows", "batch_size"),
    [
        (1, 256),
        # 50 steps of 1024 are 51 200 rows.
        (51_199, 256),
        (51_200, 1024),
        # 700 steps of 2048 are 1 433 600 rows.
        (1_433_599, 1024),
        (1_433_600, 2048),
        (22_500_000, 8192),
        (10**10, 8192),
    ],
)
def test_batches_grow_with_the_log(rows: int, batch_size: int) -> None:
    assert automatic_batch_size(rows) == batch_size


def test_the_rate_grows_with_the_root_of_the_batch() -> None:
    assert automatic_learning_rate(256) == pytest.approx(0.003)
    assert automatic_learning_rate(1024) == pytest.approx(0.006)
    assert automatic_learning_rate(64) == pytest.approx(0.0015)


@pytest.mark.parametrize(
    ("label", "label_mean", "l2"),
    [
        ({"threshold": 4.0}, 0.3, 0.3),
        ({"scale": (0.5, 5.0)}, 0.62, 0.11),
        ({"threshold": 4.0, "scale": (0.5, 5.0), "soft_weight": 0.8}, 0.56, 0.148),
        ({"threshold": 4.0, "scale": (0.5, 5.0), "soft_weight": 0.0}, 0.3, 0.3),
        ({"threshold": 4.0, "scale": (0.5, 5.0), "soft_weight": 1.0}, 0.62, 0.11),
        # A column that is the label: clicks, whose sum is the number of positive rows, or values.
        ({}, 0.3, 0.3),
        ({}, 0.31, 0.11),
        ({}, 0.0, 0.11),
        ({"scale": (0.0, 1.0)}, 0.3, 0.3),
    ],
)
def test_noisier_labels_want_more_l2(label: dict[str, Any], label_mean: float, l2: float) -> None:
    whole = Label(column="a", positive_at=0.5, **{"threshold": None, "scale": None, "soft_weight": None, **label})
    train = Split(rows=1000, positive_rows=300, label_mean=label_mean, shards=[])
    assert automatic_l2(whole, train) == pytest.approx(l2)


@pytest.mark.parametrize(
    ("per_user", "per_item", "times"), [(10, 10, 1.0), (2, 1000, 1.692), (25, 5000, 1.659), (165, 270, 1.0)]
)
def test_vectors_want_more_l2_where_one_side_has_few_ids(per_user: float, per_item: float, times: float) -> None:
    assert vector_l2_factor(per_user, per_item) == pytest.approx(times, rel=1e-3)
    assert vector_l2_factor(per_item, per_user) == pytest.approx(times, rel=1e-3)


@pytest.mark.parametrize(("rows", "factor"), [(0, 0.3), (3_000, 0.6), (5_000, 1), (10_000, 2), (15_000, 3), (10**9, 3)])
def test_biases_of_frequent_ids_are_held_down(rows: int, factor: float) -> None:
    assert automatic_bias_l2_factor(rows, ids=1_000) == pytest.approx(factor)


def test_few_new_rows_of_many_known_ids_hold_biases_as_before(dataset: Dataset) -> None:
    assert with_automatic_values(TrainerConfig(l2=0.1), dataset).bias_l2_factor == pytest.approx(550 / 62 / 5, rel=0.2)
    few = dataset.split("train").model_copy(update={"rows": 50})
    splits = {**dataset.manifest.splits, "train": few}
    counts = dataset.manifest.counts.model_copy(update={"vocabulary": 550})
    for known, factor in ((counts, 1.0), (dataset.manifest.counts, 0.3)):
        manifest = dataset.manifest.model_copy(update={"splits": splits, "counts": known})
        night = replace(dataset, manifest=manifest)
        assert with_automatic_values(TrainerConfig(), night).bias_l2_factor == pytest.approx(factor)


def test_what_is_given_stays(dataset: Dataset) -> None:
    open_ones = with_automatic_values(TrainerConfig(), dataset)
    assert (open_ones.batch_size, open_ones.optimizer.learning_rate) == (256, pytest.approx(0.003))
    # The labels of these rows are twelfths.
    assert open_ones.l2 == pytest.approx(0.11)
    # The rate follows the batch size that is given.
    given = with_automatic_values(TrainerConfig(batch_size=1024), dataset)
    assert (given.batch_size, given.optimizer.learning_rate) == (1024, pytest.approx(0.006))
    config = TrainerConfig.model_validate(
        {
            "batch_size": 7,
            "l2": 0,
            "bias_l2_factor": 0,
            "optimizer": {"name": "sgd", "learning_rate": 0.5},
            "early_stopping": {"monitor": "ndcg"},
        }
    )
    assert with_automatic_values(config, dataset) == config


def test_a_log_without_labels_is_trained_to_find_items(dataset: Dataset) -> None:
    label = dataset.manifest.label.model_copy(update={"column": None})
    implicit = replace(dataset, manifest=dataset.manifest.model_copy(update={"label": label}))
    assert [objective_of(TrainerConfig(), data) for data in (dataset, implicit)] == ["cross_entropy", "softmax"]
    assert objective_of(TrainerConfig(objective="softmax"), dataset) == "softmax"
    chosen = with_automatic_values(TrainerConfig(), implicit)
    assert (chosen.early_stopping.monitor, chosen.l2) == ("ndcg", 0.0)
    users, items = (implicit.table_rows[name] for name in ("userId", "movieId"))
    rows = implicit.split("train").positive_rows / users
    assert chosen.softmax.temperature == automatic_temperature(items, rows)
    plain = with_automatic_values(TrainerConfig(softmax=SoftmaxConfig(normalize=False)), implicit)
    assert plain.softmax.temperature == 1.0
    assert (
        with_automatic_values(TrainerConfig(softmax=SoftmaxConfig(temperature=0.3)), implicit).softmax.temperature
        == 0.3
    )
    assert with_automatic_values(TrainerConfig(), dataset).early_stopping.monitor == "auc"
