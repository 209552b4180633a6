from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.conftest import small_config, small_dataset
from trainer.data.periods import Periods, Stretch


@pytest.mark.parametrize(
    ("every", "most", "steps", "epochs"),
    [
        # Nine steps an epoch, the last with 38 of 64 rows; three epochs.
        (None, None, [9, 9, 9], [1, 2, 3]),
        (None, 2, [9, 9], [1, 2]),
        # Batches are not cut, and periods do not end with an epoch.
        (500, None, [8, 8, 8, 3], [0.888889, 1.777778, 2.666667, 3]),
        (500, 2, [8, 8], [0.888889, 1.777778]),
        (64 * 27, None, [27], [3]),
        # Longer than the training.
        (10**9, None, [27], [3]),
        # After a warm start that no training betters.
        (500, 0, [], []),
    ],
)
def test_periods_of_a_training(
    tmp_path: Path, every: int | None, most: int | None, steps: list[int], epochs: list[float]
) -> None:
    config = small_config().model_copy(update={"evaluate_every_rows": every})
    periods = Periods.of(small_dataset(tmp_path, config), config, workers=1, most=most)
    assert periods.unit == ("epoch" if every is None else "period")
    assert [periods.steps_of(number) for number in range(periods.count)] == steps
    assert [periods.epochs_after(number + 1) for number in range(periods.count)] == epochs


def test_rows_add_up_to_those_of_the_epochs(tmp_path: Path) -> None:
    config = small_config().model_copy(update={"evaluate_every_rows": 500})
    periods = Periods.of(small_dataset(tmp_path, config), config, workers=1)
    assert [periods.rows_after(number) for number in range(periods.count + 1)] == [0, 512, 550 + 448, 1100 + 384, 1650]
    # One step into the second period an epoch ends, with a batch of 38 rows.
    assert [periods.rows_after(1, steps) for steps in range(3)] == [512, 550, 614]
    assert sum(periods.rows_of(number) for number in range(periods.count)) == 1650


@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 4), st.data())
def test_stretches_have_each_step_that_is_left_once_and_in_order(
    steps: int, steps_of_epoch: int, epochs: int, draw: st.DataObject
) -> None:
    periods = Periods("period", steps, steps_of_epoch, steps_of_epoch * epochs, 10 * steps_of_epoch, 10)
    period = draw.draw(st.integers(0, periods.count - 1))
    done = draw.draw(st.integers(0, periods.steps_of(period) - 1))
    place, ends = period * steps + done, []
    stretches = list(periods.stretches(period, done))
    for stretch in stretches:
        assert (stretch.first_epoch, stretch.skip_steps) == divmod(place, steps_of_epoch)
        for _ in range(stretch.first, stretch.end):
            place += stretch.steps
            ends.append(place)
        # The data of a stretch reach to its end, and no epoch further.
        assert (stretch.epochs - 1) * steps_of_epoch < place <= stretch.epochs * steps_of_epoch
    assert ends == [min((number + 1) * steps, periods.steps_in_all) for number in range(period, periods.count)]
    # The rest of a period, whole periods, and a shorter one.
    assert len(stretches) <= 3


def test_whole_epochs_are_one_stretch(tmp_path: Path) -> None:
    config = small_config()
    periods = Periods.of(small_dataset(tmp_path, config), config, workers=1)
    assert list(periods.stretches(0, 0)) == [Stretch(0, 3, 9, 0, 0, 3)]
    assert list(periods.stretches(1, 6)) == [Stretch(1, 2, 3, 1, 6, 2), Stretch(2, 3, 9, 2, 0, 3)]
