"""Intervals for a few runs: of their mean, of one more run, of a difference of means, and of the share of failures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Interval = tuple[float, float]


def mean_interval(values: Sequence[float], level: float) -> Interval | None:
    """Where the mean lies (Student's t); None for fewer than two values."""
    return _student(values, level, 1 / max(len(values), 1))


def prediction_interval(values: Sequence[float], level: float) -> Interval | None:
    """Where one more value lies: mean -+ t s sqrt(1 + 1/n); None for fewer than two values."""
    return _student(values, level, 1 + 1 / max(len(values), 1))


def difference_interval(first: Sequence[float], second: Sequence[float], level: float) -> Interval | None:
    """Where mean(first) - mean(second) lies, the variances not assumed equal (Welch); None for too few values."""
    from scipy.stats import ttest_ind

    if min(len(first), len(second)) < 2:
        return None
    difference = float(np.mean(first) - np.mean(second))
    if np.ptp(first) == np.ptp(second) == 0:
        return difference, difference
    interval = ttest_ind(first, second, equal_var=False).confidence_interval(level)
    return float(interval.low), float(interval.high)


def share_interval(count: int, total: int, level: float) -> Interval:
    """Where the share of failures lies, of which `count` of `total` were seen (Wilson)."""
    from scipy.stats import binomtest

    interval = binomtest(count, total).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def _student(values: Sequence[float], level: float, factor: float) -> Interval | None:
    """mean -+ t s sqrt(factor), where s is the standard deviation of the values."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    mean, scale = float(np.mean(values)), float(np.std(values, ddof=1)) * factor**0.5
    if scale == 0:
        return mean, mean
    low, high = t.interval(level, len(values) - 1, mean, scale)
    return float(low), float(high)
