"""Computes the area under the ROC curve of any number of rows in bounded memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A pair of rows in one bin counts as half, so the error is at most half the share of such pairs: about 1e-6.
_BINS = 1 << 20


class StreamingAuc:
    """Counts positive and negative rows by probability, batch by batch."""

    def __init__(self) -> None:
        self._positives = np.zeros(_BINS, np.int64)
        self._negatives = np.zeros(_BINS, np.int64)

    def add(self, probabilities: NDArray[np.floating], positive: NDArray[np.bool_]) -> None:
        """Adds rows.

        Args:
            probabilities: `[batch]`, in [0, 1].
            positive: `[batch]`.
        """
        bins = np.minimum((probabilities * _BINS).astype(np.int64), _BINS - 1)
        self._positives += np.bincount(bins[positive], minlength=_BINS)
        self._negatives += np.bincount(bins[~positive], minlength=_BINS)

    def result(self) -> float:
        """Returns the share of (positive, negative) pairs where the positive row has the higher probability.

        Ties count as half. NaN if all rows are of one kind.
        """
        positives, negatives = self._positives.sum(), self._negatives.sum()
        if not positives or not negatives:
            return float("nan")
        negatives_below = np.cumsum(self._negatives) - self._negatives
        # As floats, because a hundred million rows of each kind make more pairs than an int64 can count.
        pairs = np.dot(self._positives.astype(np.float64), negatives_below + 0.5 * self._negatives)
        return float(pairs / (float(positives) * float(negatives)))
