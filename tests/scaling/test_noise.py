"""The noise scale: by hand, on problems whose covariance is known, its interval, and AdaScale's gain."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from dsr.scaling.noise import Noise, unmeasured
from dsr.scaling.rules.adascale import AdaScale

D, BATCH, SLOTS = 10, 2, 8


def add(noise, squares, norm, b, batch):
    """Add an update whose slots of b samples weigh the same, with the norms of their mean gradients."""
    share = b / batch
    noise.add([share**2 * square for square in squares], [share] * len(squares), norm, batch)


def regression(seed, updates, measured=SLOTS):
    """The noise of linear regression at a fixed point, and its truth.

    y = x w* + e, with x ~ N(0, I) and e ~ N(0, 4): one sample's gradient at w = w* + a is x (x a - e), whose mean is a,
    and whose covariance is (|a|^2 + 4) I + a a^T: its trace is D (|a|^2 + 4) + |a|^2.
    """
    random = np.random.default_rng(seed)
    a = np.full(D, 0.6)
    noise, singles = Noise(), []
    for _ in range(updates):
        x = random.normal(size=(SLOTS, BATCH, D))
        gradients = x * (x @ a - random.normal(scale=2, size=(SLOTS, BATCH)))[..., None]
        slots = gradients.mean(1)
        one = Noise()
        for each in (noise, one):
            add(
                each,
                [float(g @ g) for g in slots[:measured]],
                float(np.linalg.norm(slots.mean(0))),
                BATCH,
                SLOTS * BATCH,
            )
        singles.append((one.variance, one.square))
    return noise, np.array(singles), D * (a @ a + 4) + a @ a, a @ a


def test_one_update_by_hand():
    noise = Noise()
    add(noise, [9.0, 1.0], 2.0, 4, 8)
    # small = (9 + 1) / 2 = 5, big = 4, b = 4, B = 8
    # |G|^2 = (8 x 4 - 4 x 5) / (8 - 4) = 3; tr(Sigma) = (5 - 4) / (1/4 - 1/8) = 8
    assert (noise.square, noise.variance, noise.scale) == (3.0, pytest.approx(8.0), pytest.approx(8 / 3))


def test_the_two_averages_are_separate_and_weighted():
    noise = Noise()
    add(noise, [9.0, 1.0], 2.0, 4, 8)  # 3 and 8, above
    add(noise, [4.0, 4.0], 2.0, 4, 8)  # small = big = 4: |G|^2 = (32 - 16) / 4 = 4, tr(Sigma) = 0
    assert noise.square == pytest.approx((0.98 * 3 + 4) / 1.98)
    assert noise.variance == pytest.approx(0.98 * 8 / 1.98)
    assert noise.scale == pytest.approx(0.98 * 8 / (0.98 * 3 + 4))


@pytest.mark.slow
@pytest.mark.parametrize("measured", [SLOTS, 5])
def test_both_estimates_are_unbiased(measured):
    """Over 400 x 50 updates, each with gradients of its own, the mean errors lie within 4 of their standard errors."""
    singles = []
    for seed in range(400):
        _, found, variance, square = regression(seed, 50, measured)
        singles.append(found)
    errors = np.concatenate(singles) - (variance, square)
    standard = errors.std(0, ddof=1) / math.sqrt(len(errors))
    assert (standard < 0.01 * np.array([variance, square])).all()  # it would see a bias of a few per cent
    assert (abs(errors.mean(0)) < 4 * standard).all()


def sparse_regression(seed, updates, correlation):
    """The same regression with missing data: single estimates (variance, square), and their truth.

    A sample has 1 to 12 points, or in one of four cases none. To their gradients, whose covariance is that of
    `regression`, it adds one term that they share, of covariance 4 `correlation` I. The loss is the mean over the
    points of all slots: with n_i points in sample i and N in the update, the variance of its gradient is that of one
    point over N, and 4 `correlation` D sum n_i^2 / N^2.
    """
    random = np.random.default_rng(seed)
    a = np.full(D, 0.6)
    singles, truths = [], []
    for _ in range(updates):
        points = random.integers(1, 13, (SLOTS, BATCH)) * (random.random((SLOTS, BATCH)) > 0.25)
        total = points.sum()
        slots = np.zeros((SLOTS, D))
        for slot in range(SLOTS):
            for count in points[slot]:
                x = random.normal(size=(count, D))
                common = random.normal(scale=2 * math.sqrt(correlation), size=D)  # of the sample's gradients
                e = random.normal(scale=2, size=count)
                slots[slot] += (x * (x @ a - e)[:, None] + common).sum(0) / total
        noise = Noise()
        noise.add(
            [float(g @ g) for g in slots], (points.sum(1) / total).tolist(), float(np.linalg.norm(slots.sum(0))), 1
        )
        singles.append((noise.variance, noise.square))
        within = (D * (a @ a + 4) + a @ a) / total
        truths.append((within + 4 * correlation * D * (points**2).sum() / total**2, a @ a))
    return np.array(singles), np.array(truths)


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_both_estimates_are_unbiased_with_missing_data(correlation):
    """Whether the points of a sample are independent or not; within 4 standard errors of at most 3 %."""
    found, truth = sparse_regression(3, 6000, correlation)
    errors = found - truth
    standard = errors.std(0, ddof=1) / math.sqrt(len(errors))
    assert (standard < 0.03 * truth.mean(0)).all()
    assert (abs(errors.mean(0)) < 4 * standard).all()


def test_unequal_weights_by_hand():
    noise = Noise()
    noise.add([4.0, 1.0], [0.5, 0.25], 2.5, 8)
    # Q = 5, |g|^2 = 6.25, W1 = 3/4, W2 = 5/16: W1 - W2 = 7/16
    # |G|^2 = (3/4 6.25 - 5) / (7/16) = -5/7, tr(Sigma) = 8 (5 - 5/16 6.25) / (7/16) = 55 5/7
    assert (noise.square, noise.variance) == (pytest.approx(-5 / 7), pytest.approx(390 / 7))
    for weights in ([1.0, 0.0], [0.0, 0.0]):
        noise.add([1.0, 0.0], weights, 1.0, 8)
    assert noise.weight == 1  # where one slot has all points, or the measured ones none, nothing is learnt


@pytest.mark.slow
def test_the_truth_lies_within_its_interval_as_often_as_it_says():
    inside, bounded = 0, 0
    for seed in range(400):
        noise, _, variance, square = regression(seed, 60)
        low, high = noise.interval(0.95)
        assert low <= noise.scale and (high is None or noise.scale <= high)
        inside += low <= variance / square and (high is None or variance / square <= high)
        bounded += high is not None
    assert 0.92 <= inside / 400 <= 0.98  # 0.95, and 3 standard deviations of 400 draws: 0.033
    assert bounded > 390


def test_where_noise_hides_the_gradient_there_is_no_upper_bound():
    random = np.random.default_rng(0)
    noise = Noise()
    for _ in range(30):
        slots = random.normal(size=(SLOTS, D))  # the true gradient is 0
        add(noise, [float(g @ g) for g in slots], float(np.linalg.norm(slots.mean(0))), 1, SLOTS)
    low, high = noise.interval()
    assert high is None and low > SLOTS
    assert noise.scale is None or noise.scale > low


def test_nothing_yet():
    noise = Noise()
    assert noise.scale is None and noise.interval() is None
    add(noise, [9.0, 1.0], 2.0, 4, 8)
    assert noise.interval() is None  # one update has no spread
    add(noise, [math.inf, 1.0], 2.0, 4, 8)
    assert noise.weight == 1  # passed over


def test_it_comes_back_from_json_to_the_bit():
    noise, *_ = regression(1, 20)
    again = Noise(**json.loads(json.dumps(vars(noise))))
    assert again == noise and again.interval() == noise.interval()


def test_the_gain_by_hand():
    noise = Noise()
    add(noise, [9.0, 1.0], 2.0, 4, 8)  # tr(Sigma) = 8, |G|^2 = 3
    assert AdaScale().gain(noise, 4, 1) == 1
    assert AdaScale().gain(noise, 4, 10) == pytest.approx((2 + 3) / (0.2 + 3))  # 8 / 4 = 2
    phi = noise.scale / 4
    assert AdaScale().gain(noise, 4, 10) == pytest.approx((phi + 1) / (phi / 10 + 1))


@pytest.mark.parametrize(
    ("slots", "norm", "gain"),
    [
        ([1.0, 1.0], 1.0, 1.0),  # no noise: the batch is as good as its part
        ([1.0, 1.0], 0.1, 8.0),  # |G|^2 = 2 x 0.01 - 1 < 0: nothing but noise
        ([1.0, 1.0], 1.2, 1.0),  # tr(Sigma) < 0
        ([0.0, 0.0], 0.0, 1.0),  # nothing at all
    ],
)
def test_the_gain_stays_between_1_and_k(slots, norm, gain):
    noise = Noise()
    add(noise, slots, norm, 1, 2)
    assert AdaScale().gain(noise, 2, 8) == gain


def test_why_there_is_none():
    assert unmeasured(True, 2) == ""
    assert "two slots" in unmeasured(True, 1)
    assert "DeepSpeed's own reduction" in unmeasured(False, 8)


def test_noise_needs_no_torch():
    heavy = ("torch", "deepspeed", "numpy", "scipy")
    code = f"import sys, dsr.scaling.noise; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
