"""Confidence intervals of RMSE differences whose errors are correlated from one forecast to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

COSINES = 4  # more give narrower intervals, which cover too little where errors persist over many cases
DAY = 86400
DISCOVERY_RATE = 0.05
FEWEST_CASES = 8
LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """RMSE of the first method minus that of the second, in the variable's units.

    `interval` is its 95 % confidence interval, and `p` the two-sided p-value of "no difference"; None for both where
    there are fewer than FEWEST_CASES cases.
    """

    rmse: float
    interval: tuple[float, float] | None
    p: float | None


def number_cases(init_time: np.ndarray) -> np.ndarray:
    """The case of each sample (sample), numbered from 0 in order of time: its init time (sample), in seconds.

    Init times of the same day (24 hours, counted from the first) are one case, so that neither hourly analyses nor
    four forecasts a day count as independent.

    >>> number_cases(3600 * np.array([0, 6, 24, 30, 72])).tolist()
    [0, 0, 1, 1, 2]
    """
    days = (init_time - init_time.min()) // DAY
    return np.unique(days, return_inverse=True)[1]


def rmse_difference(squares: np.ndarray, weight: np.ndarray, case: np.ndarray) -> Difference:
    """The difference of two pooled RMSEs, sqrt(sum(w a) / sum(w)) - sqrt(sum(w b) / sum(w)), and its interval.

    squares (2, sample): the mean square errors a and b of the two methods; weight (sample): w, positive; case (sample):
    from `number_cases`.

    The delta method turns the difference of the two roots into the mean of one series, a value for each case: the
    case's share of the difference to first order. That series is paired (a hard day is hard for both) and may be
    correlated in time. The variance of its mean comes from the equal-weighted cosine estimator of the long-run
    variance with B = 4 cosines, and the quantiles from Student's t with B degrees of freedom (Lazarus, Lewis, Stock
    and Watson 2018, doi:10.1080/07350015.2018.1506926). Cases count as evenly spaced.

    >>> ours = np.array([1.0, 1.2, 0.8, 1.1, 0.9, 1.3, 0.7, 1.0])  # mean square errors of 8 days
    >>> theirs = np.array([1.5, 1.6, 1.4, 1.7, 1.3, 1.8, 1.2, 1.5])
    >>> difference = rmse_difference(np.stack([ours, theirs]), weight=np.ones(8), case=np.arange(8))
    >>> print("{:.3f}, from {:.3f} to {:.3f}".format(difference.rmse, *difference.interval))
    -0.225, from -0.251 to -0.199
    """
    present = np.unique(case, return_inverse=True)[1]
    count = int(present.max()) + 1
    mean = squares @ weight / weight.sum()
    rmse = np.sqrt(mean)
    difference = float(rmse[0] - rmse[1])
    if count < FEWEST_CASES:
        return Difference(difference, None, None)
    departure = (squares - mean[:, None]) * weight / weight.sum()
    influence = np.divide(departure, 2 * rmse[:, None], out=np.zeros_like(departure), where=rmse[:, None] > 0)
    series = count * np.bincount(present, influence[0] - influence[1], count)
    return Difference(difference, *_student(difference, _standard_error(series)))


def decided(p_values: Sequence[float]) -> list[bool]:
    """Which of several differences are real, by a false discovery rate of 5 % over all of them.

    Of those called real, 5 % at most are expected to be due to chance (Benjamini and Hochberg 1995,
    doi:10.1111/j.2517-6161.1995.tb02031.x), however many are compared.

    >>> decided([0.001, 0.02, 0.04, 0.3])
    [True, True, False, False]
    """
    from scipy.stats import false_discovery_control

    return [bool(p <= DISCOVERY_RATE) for p in false_discovery_control(p_values)] if len(p_values) else []


def _standard_error(series: np.ndarray) -> float:
    """The standard error of the mean of a series (case) that may be correlated in time."""
    from scipy.fft import dct

    low_frequencies = dct(series, norm="ortho")[1 : COSINES + 1]
    return float(np.sqrt(np.mean(low_frequencies**2) / len(series)))


def _student(value: float, error: float) -> tuple[tuple[float, float], float]:
    """The interval around a value with that standard error, and the p-value of zero."""
    from scipy.stats import t

    if error == 0:
        return (value, value), float(value == 0)
    half = float(t.ppf(0.5 + LEVEL / 2, COSINES)) * error
    return (value - half, value + half), float(2 * t.sf(abs(value) / error, COSINES))
