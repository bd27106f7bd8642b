"""The order of an epoch: a keyed permutation of the samples, in O(1) memory and time for any position."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

ROUNDS = 10  # as in NIST SP 800-38G; with fewer some orders of a handful of samples come too often


def order(seed: int, epoch: int, samples: int, positions: np.ndarray) -> np.ndarray:
    """(n) int64: the samples at these positions (n) int64 of an epoch, a pure function of the arguments.

    A cipher over the numbers below `samples`: a Feistel network on pairs of numbers below a = ceil(sqrt(samples)),
    walked on until it is back below `samples`, which takes 1 + O(1/a) steps (Black and Rogaway 2002, "Ciphers with
    arbitrary finite domains"). Its round function is the finaliser of SplitMix64 (Steele, Lea and Flood 2014), under
    keys that Philox draws from (seed, epoch).
    """
    side = math.isqrt(samples - 1) + 1
    result = np.array(positions, np.uint64)
    outside = np.arange(len(result))
    while len(outside):
        left, right = np.divmod(result[outside], np.uint64(side))
        for key in _keys(seed, epoch):
            left, right = right, (left + _mixed(right + key) % np.uint64(side)) % np.uint64(side)
        result[outside] = left * np.uint64(side) + right
        outside = outside[result[outside] >= samples]
    return result.astype(np.int64)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Pseudo-random 64 bits for each uint64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@lru_cache(4)
def _keys(seed: int, epoch: int) -> np.ndarray:
    return np.random.Philox(key=[seed, epoch]).random_raw(ROUNDS)
