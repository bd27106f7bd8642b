"""Intervals against values worked out by hand."""

import pytest

from dsr.study.statistics import difference_interval, mean_interval, prediction_interval, share_interval

FIVE = [2.0, 4.0, 4.0, 5.0, 5.0]  # mean 4, variance 6 / 4 = 1.5


def test_the_mean_s_interval_is_student_s():
    half = 2.776445 * (1.5 / 5) ** 0.5  # t(0.975, 4) from the table
    assert mean_interval(FIVE, 0.95) == pytest.approx((4 - half, 4 + half), rel=1e-6)
    half = 4.604095 * (1.5 / 5) ** 0.5
    assert mean_interval(FIVE, 0.99) == pytest.approx((4 - half, 4 + half), rel=1e-6)
    assert mean_interval([1.0], 0.95) is None and mean_interval([], 0.95) is None


def test_one_more_value_lies_in_a_wider_interval():
    half = 2.776445 * (1.5 * 1.2) ** 0.5
    assert prediction_interval(FIVE, 0.95) == pytest.approx((4 - half, 4 + half), rel=1e-6)


def test_the_difference_s_interval_is_welch_s():
    # shares of variance 1.5 / 5 = 0.3 and 0.5 / 2 = 0.25; freedom 0.55**2 / (0.09 / 4 + 0.0625 / 1) = 3.558824
    half = 2.917 * 0.55**0.5  # t(0.975, 3.5588), between 3.182 (3) and 2.776 (4)
    low, high = difference_interval(FIVE, [1.0, 2.0], 0.95)
    assert (low + high) / 2 == pytest.approx(2.5)
    assert (high - low) / 2 == pytest.approx(half, rel=2e-3)
    assert difference_interval([1.0, 1.0], [3.0, 3.0], 0.95) == (-2, -2)
    assert difference_interval([1.0], FIVE, 0.95) is None


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, (0.0, 0.4345)), (1, (0.0362, 0.6245)), (5, (0.5655, 1.0))],  # Wilson 1927 for 5 runs, z = 1.96
)
def test_the_share_of_failures_has_wilson_s_interval(count, expected):
    assert share_interval(count, 5, 0.95) == pytest.approx(expected, abs=1e-4)
