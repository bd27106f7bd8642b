"""How many values the truths of training have: the numbers that the loss of an update is divided by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from dsr.data.store import Store

VALUES = 2**24  # read at once


def count_values(truth: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(n, variable) int64: the values of (n, variable, Y, X) that are there, where (Y, X) bool `inside` is true."""
    return np.count_nonzero(np.isfinite(truth) & inside, axis=(-2, -1)).astype(np.int64)


def no_counts(times: int, variables: int) -> np.ndarray:
    """(time, variable) int64, -1 everywhere: no truth is one of training."""
    return np.full((times, variables), -1, np.int64)


def count_rows(store: Store, rows: np.ndarray, beat: Callable[[], None] = lambda: None) -> np.ndarray:
    """(n, variable) int64: the counts of these rows of `store.high`, which are truths of training.

    They are read from the fields where the store has none; `beat` is called now and then.
    """
    if store.counts is not None:
        return store.counts[rows]
    size = max(1, VALUES // int(np.prod(store.high.shape[1:])))
    counts, inside = [no_counts(0, store.high.shape[1])], store.mask("train")
    for start in range(0, len(rows), size):
        counts.append(count_values(store.high[rows[start : start + size]], inside))
        beat()
    return np.concatenate(counts)
