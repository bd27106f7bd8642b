"""Confidence intervals against simulations in which the true difference is known."""

import numpy as np
import pytest
from scipy.signal import lfilter

from dsr.verify.intervals import FEWEST_CASES, decided, number_cases, rmse_difference

HOUR = 3600


def persistent(random: np.random.Generator, rho: float, cases: int, series: int) -> np.ndarray:
    """Gaussian AR(1) series (series, cases) of variance 1 and autocorrelation `rho`."""
    noise = random.normal(size=(series, cases)) * np.sqrt(1 - rho**2)
    noise[:, 0] /= np.sqrt(1 - rho**2)
    return lfilter([1], [1, -rho], noise)


def oracle_width(rho: float, cases: int) -> float:
    """The width of the 95 % interval of the mean of `persistent` for one who knows `rho`."""
    lags = np.arange(1, cases)
    return 2 * 1.96 * np.sqrt((1 + 2 * np.sum((1 - lags / cases) * rho**lags)) / cases)


@pytest.mark.parametrize(("rho", "cases"), [(0.5, 20), (0.7, 40), (0.7, 100)])
def test_intervals_of_correlated_errors_cover_the_true_difference_and_are_not_too_wide(rho, cases):
    random = np.random.default_rng(0)
    errors = persistent(random, rho, cases, 2000)
    weight, index = np.ones(cases), np.arange(cases)
    # both RMSEs are near 10, where the difference of the roots is that of the mean squares divided by 20
    intervals = np.array(
        [rmse_difference(np.stack([100 + 0.2 * e, np.full(cases, 100.0)]), weight, index).interval for e in errors]
    )
    covered = np.mean((intervals[:, 0] <= 0) & (intervals[:, 1] >= 0))
    assert 0.90 <= covered <= 0.97
    assert np.mean(intervals[:, 1] - intervals[:, 0]) <= 1.5 * 0.01 * oracle_width(rho, cases)


def test_the_difference_of_two_unequal_rmses_is_covered_with_leads_and_weights():
    random = np.random.default_rng(1)
    cases, leads, repeats = 40, 3, 1000
    case = np.repeat(np.arange(cases), leads)
    truth = np.sqrt(1.5) - 1.0
    covered = 0
    for first, second in zip(*(persistent(random, 0.5, cases, repeats) for _ in range(2)), strict=True):
        hard = np.exp(0.5 * first - 0.125)  # mean 1, the same difficulty for both methods
        extra = 0.5 * np.exp(0.5 * second - 0.125)
        squares = np.stack([hard + extra, hard])[:, case]
        weight = random.uniform(0.5, 1.5, cases * leads)
        low, high = rmse_difference(squares, weight, case).interval
        covered += low <= truth <= high
    assert 0.90 <= covered / repeats <= 0.97


def test_the_value_is_that_of_the_pooled_rmses_and_the_methods_are_paired():
    random = np.random.default_rng(0)
    weather = random.gamma(1, 100, 40)
    squares, weight = np.stack([weather + 0.1, weather]), random.uniform(0.5, 1.5, 40)
    result = rmse_difference(squares, weight, np.arange(40))
    first, second = np.sqrt(np.average(squares, axis=1, weights=weight))
    assert result.rmse == pytest.approx(first - second)
    low, high = result.interval
    assert 0 < low < result.rmse < high < 0.02 and result.p < 0.01


def test_a_method_without_error_and_two_equal_methods():
    squares = np.random.default_rng(0).gamma(2, 1, (1, 12))
    perfect = rmse_difference(np.concatenate([0 * squares, squares]), np.ones(12), np.arange(12))
    assert perfect.interval[1] < 0 and perfect.p < 0.01
    equal = rmse_difference(np.concatenate([squares, squares]), np.ones(12), np.arange(12))
    assert (equal.rmse, equal.interval, equal.p) == (0, (0, 0), 1)


def test_fewer_than_eight_cases_have_no_interval():
    squares = np.random.default_rng(0).gamma(2, 1, (2, 3 * FEWEST_CASES))
    case, weight = np.repeat(np.arange(FEWEST_CASES), 3), np.ones(3 * FEWEST_CASES)
    assert rmse_difference(squares, weight, case).interval is not None
    few = rmse_difference(squares[:, 3:], weight[3:], case[3:])
    assert few.interval is None and few.p is None and np.isfinite(few.rmse)


def test_init_times_of_one_day_are_one_case():
    hourly = 1_000_000_000 + HOUR * np.arange(60)
    assert number_cases(hourly).tolist() == [0] * 24 + [1] * 24 + [2] * 12
    gaps = np.array([0, 0, 126, 126, 300]) * HOUR
    assert number_cases(gaps).tolist() == [0, 0, 1, 1, 2]


def test_among_many_comparisons_without_a_difference_few_families_have_any_discovery():
    random = np.random.default_rng(0)
    noise = persistent(random, 0.3, 60, 200 * 10).reshape(200, 10, 60)
    second = np.full(60, 100.0)
    families = 0
    for family in noise:
        p = [rmse_difference(np.stack([100 + row, second]), np.ones(60), np.arange(60)).p for row in family]
        families += any(decided(p))
    assert families / 200 <= 0.08
    assert decided([0.001, 0.04, 0.04, 0.9]) == [True, False, False, False]  # 0.04 alone would count
    assert decided([0.04]) == [True] and decided([]) == []
