"""Fits a logistic regression: on logits for the calibration, on vectors for OOV embeddings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_MAX_STEPS = 100
# The fit ends when the mean cross-entropy, in nats, falls by less than this, far less than chance could explain.
_TOLERANCE = 1e-10


def fit_logistic(
    x: Array, target: Array, start: Array, *, offset: Array | float = 0.0, l2: Array | float = 0.0
) -> Array:
    """Minimise mean cross-entropy(target, sigmoid(x @ parameters + offset)) + sum(l2 * parameters ** 2).

    Uses Newton's method with halved steps. Without `l2`, the caller has to know that the minimum is finite.

    Args:
        x: `[rows, parameters]`, at least one row.
        target: `[rows]`, in [0, 1].
        start: `[parameters]`, where the search begins.
        offset: `[rows]` or a scalar, added to the logits.
        l2: `[parameters]` or a scalar, at least 0.

    Returns:
        `[parameters]`.
    """

    def loss_at(at: Array) -> float:
        logit = x @ at + offset
        return float((np.logaddexp(0, logit) - target * logit).mean() + np.sum(l2 * at * at))

    parameters, loss = start, loss_at(start)
    for _ in range(_MAX_STEPS):
        p = sigmoid(x @ parameters + offset)
        gradient = x.T @ (p - target) / len(x) + 2 * l2 * parameters
        hessian = (x * (p * (1 - p))[:, np.newaxis]).T @ x / len(x)
        # The ridge is for weights that have underflowed; it changes the direction, not the minimum.
        step = np.linalg.solve(hessian + np.diag(np.broadcast_to(2 * l2 + 1e-12, start.shape)), gradient)
        size = 1.0
        while (new_loss := loss_at(parameters - size * step)) > loss and size > 1e-6:
            size /= 2
        if loss - new_loss < _TOLERANCE:
            break
        parameters, loss = parameters - size * step, new_loss
    return parameters


def sigmoid(logit: Array) -> Array:
    """Compute 1 / (1 + exp(-logit)) without overflow."""
    small = np.exp(-np.abs(logit))
    return np.where(logit >= 0, 1 / (1 + small), small / (1 + small))
