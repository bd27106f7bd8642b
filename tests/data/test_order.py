"""An epoch's order: a permutation of any number of samples, uniform by its statistics, without memory."""

import math
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2

from dsr.data.order import order


def whole(seed, epoch, samples):
    return order(seed, epoch, samples, np.arange(samples))


def improbable(observed, expected):
    """The probability of counts at least as far from the expected ones, by chi-square with one constraint."""
    observed = np.asarray(observed, float).ravel()
    return chi2.sf(((observed - expected) ** 2 / expected).sum(), len(observed) - 1)


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5, 40, 1000, 1024, 4095, 4096, 4097])
def test_it_is_a_permutation_and_a_pure_function(samples):
    found = whole(5, 3, samples)
    assert found.dtype == np.int64 and sorted(found) == list(range(samples))
    places = np.array([samples - 1, 0, samples // 2])
    assert order(5, 3, samples, places).tolist() == found[places].tolist()
    assert order(5, 3, samples, places[:0]).tolist() == []


def test_seeds_and_epochs_give_other_orders():
    assert len({tuple(whole(seed, epoch, 100)) for seed in (0, 1, 2**63 - 1) for epoch in range(3)}) == 9


@pytest.mark.parametrize("samples", [3, 4])
def test_every_order_of_a_few_samples_comes_as_often(samples):
    draws, orders = 3000, math.factorial(samples)
    found = Counter(tuple(whole(1, epoch, samples)) for epoch in range(draws))
    assert len(found) == orders and improbable(list(found.values()), draws / orders) > 1e-3


def test_places_and_neighbours_are_uniform_and_without_correlation():
    samples, epochs = 29, 3000
    found = np.array([whole(7, epoch, samples) for epoch in range(epochs)])
    where = np.array([np.bincount(column, minlength=samples) for column in found.T])
    degrees = (samples - 1) ** 2
    assert chi2.sf(((where - epochs / samples) ** 2 / (epochs / samples)).sum(), degrees) > 1e-3
    pairs = np.bincount((found[:, :-1] * samples + found[:, 1:]).ravel(), minlength=samples**2)
    pairs = pairs.reshape(samples, samples)[~np.eye(samples, dtype=bool)]
    assert improbable(pairs, pairs.mean()) > 1e-3
    steps = np.bincount((np.diff(found, axis=1) % samples).ravel(), minlength=samples)[1:]
    assert improbable(steps, steps.mean()) > 1e-3


@pytest.mark.parametrize("lag", [1, 2, 316])
def test_a_long_order_has_no_serial_correlation(lag):
    found = whole(2, 0, 10**5).astype(float)
    correlation = np.corrcoef(found[:-lag], found[lag:])[0, 1]
    assert abs(correlation) < 4 / math.sqrt(len(found))  # four standard deviations
    assert abs(np.corrcoef(found, np.arange(len(found)))[0, 1]) < 4 / math.sqrt(len(found))


def test_a_billion_samples_take_no_memory():
    tracemalloc.start()
    first = order(1, 2, 10**9, np.array([0, 10**9 - 1, 123456789]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20 and ((first >= 0) & (first < 10**9)).all() and len(set(first.tolist())) == 3
