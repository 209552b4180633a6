from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.manifest import Split
from tests.trainer.runs import Finished
from trainer.loop.advice import advice, constant_loss
from trainer.train import train

pytestmark = pytest.mark.slow


def split_of(mean: float, rows: int = 10**6) -> Split:
    return Split(rows=rows, positive_rows=round(mean * rows), label_mean=mean, shards=[])


@pytest.mark.parametrize(("labels", "train"), [(0.3, 0.3), (0.25, 0.9), (1.0, 0.5)])
def test_constant_loss(labels: float, train: float) -> None:
    expected = -(labels * np.log(train) + (1 - labels) * np.log(1 - train))
    assert constant_loss(split_of(labels), split_of(train)) == pytest.approx(expected, abs=1e-5)


def test_constant_loss_of_one_class_is_finite() -> None:
    assert 0 < constant_loss(split_of(0.0, 100), split_of(0.0, 100)) < 0.01
    assert math.isfinite(constant_loss(split_of(1.0, 100), split_of(0.0, 100)))


@pytest.mark.parametrize(
    ("split", "loss", "before", "constant", "expected"),
    [
        ("train", 0.69, [], 0.69, None),
        # A first epoch may be a little worse than nothing learnt.
        ("train", 0.8, [], 0.69, None),
        ("train", 0.9, [], 0.69, "Epoch 1: the train cross-entropy is 0.9000, but .* mean label .* 0.6900.*a tenth"),
        ("train", 0.5, [0.6, 0.2, 0.4], 0.69, r"\(epoch 1: 0.6000, best: 0.2000\), but that is 2.5 times .* a tenth"),
        ("train", 0.39, [0.6, 0.2, 0.4], 0.69, None),
        ("eval", 0.9, [0.6], 0.69, "Epoch 2: the eval .*overfits the train rows: try a larger `trainer.l2`"),
        # Labels of nearly one class: four times very little.
        ("eval", 0.004, [0.001], 0.001, None),
    ],
)
def test_advice(split: str, loss: float, before: list[float], constant: float, expected: str | None) -> None:
    text = advice(split, loss, before, constant, learning_rate=0.3, l2=0.11)
    if expected is None:
        assert text is None
    else:
        assert text is not None and re.search(expected, text) and text.endswith("Now: learning rate 0.3, l2 0.11.")


def advised(run: Finished, model_dir: Path, caplog: pytest.LogCaptureFixture, **changes: Any) -> list[str]:
    config = type(run.config).model_validate({**run.config.model_dump(), **changes})
    with caplog.at_level(logging.WARNING, "trainer.train"):
        train(run.data.path, str(model_dir), config)
    return [record.message for record in caplog.records if "cross-entropy" in record.message]


def test_a_training_with_too_large_steps_is_told_so_once(
    finished: Finished, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Every epoch is worse than the mean label; nothing overflows.
    (text,) = advised(finished, tmp_path, caplog, optimizer={"learning_rate": 5.0}, l2=0)
    assert re.match(
        r"Epoch 1: the train cross-entropy is \d+\.\d+, but predicting the mean label .* rate 5, l2 0", text
    )


@pytest.mark.slow
def test_a_training_that_goes_well_is_left_alone(
    finished: Finished, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not advised(finished, tmp_path, caplog)
