"""Intervals for few runs: means, one more run, differences of means, and shares of failures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Interval = tuple[float, float]


def mean_interval(values: Sequence[float], level: float) -> Interval | None:
    """Where the mean lies: mean -+ t s / sqrt(n) (Student 1908); None for fewer than two values."""
    return _around_mean(values, level, 1 / max(len(values), 1))


def prediction_interval(values: Sequence[float], level: float) -> Interval | None:
    """Where one more value lies: mean -+ t s sqrt(1 + 1/n); None for fewer than two values."""
    return _around_mean(values, level, 1 + 1 / max(len(values), 1))


def difference_interval(first: Sequence[float], second: Sequence[float], level: float) -> Interval | None:
    """Where mean(first) - mean(second) lies, the variances not assumed equal (Welch 1947); None for too few values."""
    if min(len(first), len(second)) < 2:
        return None
    shares = [float(np.var(values, ddof=1)) / len(values) for values in (first, second)]
    difference = float(np.mean(first) - np.mean(second))
    if sum(shares) == 0:
        return difference, difference
    freedom = sum(shares) ** 2 / sum(
        share**2 / (len(values) - 1) for share, values in zip(shares, (first, second), strict=True)
    )
    half = _t(level, freedom) * math.sqrt(sum(shares))
    return difference - half, difference + half


def wilson_interval(count: int, total: int, level: float) -> Interval:
    """Where the share of failures lies, of which `count` of `total` were seen (Wilson 1927)."""
    from scipy.stats import norm

    z = float(norm.ppf(0.5 + level / 2))
    share = count / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _around_mean(values: Sequence[float], level: float, factor: float) -> Interval | None:
    """mean -+ t s sqrt(factor)"""
    if len(values) < 2:
        return None
    half = _t(level, len(values) - 1) * float(np.std(values, ddof=1)) * math.sqrt(factor)
    mean = float(np.mean(values))
    return mean - half, mean + half


def _t(level: float, freedom: float) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + level / 2, freedom))
