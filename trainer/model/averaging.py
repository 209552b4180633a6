"""Averages the weights over periods, which ranks better than the weights after any one of them.

The average is exponential, after B. Polyak and A. Juditsky, "Acceleration of Stochastic Approximation by Averaging"
(1992). It is updated once a period, see `data.periods`, because an update touches whole tables. It takes the memory
of one more copy of the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from trainer.model.blocks import row_blocks


class WeightAverage:
    """Computes average = decay * average + (1 - decay) * weights, from the weights after the first period on.

    `saved` holds the averages; save it in each checkpoint of the weights.

    Args:
        weights: the variables to follow; to be created in the scope of their strategy.
        decay: in [0, 1); with 0 the average is the weights themselves, and no copy is kept.
    """

    def __init__(self, weights: Sequence[tf.Variable], decay: float) -> None:
        self._decay = decay
        self._strategy = tf.distribute.get_strategy()
        self._weights = list(weights) if decay else []
        self.saved = tf.Module()
        self.saved.averages = [tf.Variable(weight.read_value(), trainable=False) for weight in self._weights]
        self.saved.periods = tf.Variable(0, trainable=False, dtype=tf.int64)

    def update(self) -> None:
        """Add the weights after one more period to the average."""
        kept = self._decay if int(self.saved.periods.read_value()) else 0.0
        for weight, average in self._pairs():
            for current, averaged in zip(row_blocks(weight), row_blocks(average), strict=True):
                averaged.write(kept * averaged.read() + (1 - kept) * current.read())
        self.saved.periods.assign_add(1)

    def swap(self) -> None:
        """Exchange weights and averages; a second call undoes it."""
        for weight, average in self._pairs():
            for current, averaged in zip(row_blocks(weight), row_blocks(average), strict=True):
                value = current.read()
                current.write(averaged.read())
                averaged.write(value)

    def _pairs(self) -> Iterator[tuple[tf.Variable, tf.Variable]]:
        """Yield each weight with its average, once for each copy of them that this process has."""
        copies = self._strategy.experimental_local_results
        for weight, average in zip(self._weights, self.saved.averages, strict=True):
            yield from zip(copies(weight), copies(average), strict=True)


class AverageWeights(tf.keras.callbacks.Callback):
    """Updates an average after each period, and puts it in place of the weights while the eval split is evaluated.

    Place it before callbacks that save, so that the average is up to date at the end of a period.

    Args:
        average: of the model's weights.
        before_eval: called when the averages have taken the place of the weights.
    """

    def __init__(self, average: WeightAverage, before_eval: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._average = average
        self._before_eval = before_eval
        self._is_updated = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._is_updated = False

    def on_test_begin(self, logs: Any = None) -> None:
        """Update before the eval split: inside of `fit`, Keras evaluates after the last step of a period."""
        self._average.update()
        self._is_updated = True
        self._average.swap()
        self._before_eval()

    def on_test_end(self, logs: Any = None) -> None:
        self._average.swap()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not self._is_updated:
            self._average.update()
