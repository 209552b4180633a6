"""Formats numbers and intervals for the report, the verdict and the console."""

from __future__ import annotations

import numpy as np

from dotbias.evaluation.results import Estimate, Subject

# Shown for a number that is not defined.
MISSING = "\N{EN DASH}"


def number(value: float | None, digits: int = 4) -> str:
    return MISSING if value is None or not np.isfinite(value) else f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def signed(value: float | None, digits: int = 4) -> str:
    shown = number(value, digits)
    return f"+{shown}" if value is not None and value > 0 else shown


def percent(value: float | None, digits: int = 1) -> str:
    return MISSING if value is None or not np.isfinite(value) else f"{value:.{digits}%}".replace("-", "\N{MINUS SIGN}")


def interval(estimate: Estimate, digits: int = 4) -> str:
    """Formats `low` to `high`; empty without an interval."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{number(estimate.low, digits)} to {number(estimate.high, digits)}"


def with_interval(estimate: Estimate, digits: int = 4) -> str:
    shown = number(estimate.value, digits)
    return f"{shown} ({interval(estimate, digits)})" if interval(estimate) else shown


def of_sample(subject: Subject) -> str:
    """Says how many users and rows were sampled; empty if all were measured."""
    if (sample := subject.sample) is None:
        return ""
    return (
        f"a random sample: {subject.users:,} of {sample.users:,} users, with all their rows, "
        f"{subject.rows:,} of {sample.rows:,}"
    )
