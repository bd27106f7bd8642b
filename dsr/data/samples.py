"""Samples of a store as physical fields, in order, as many at once as memory allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dsr.data.features import Features
    from dsr.data.store import Store


@dataclass(frozen=True)
class Samples:
    """low (n, [member,] variable, y, x) and truth (n, variable, Y, X) float32; times (n) int64 seconds."""

    low: np.ndarray
    truth: np.ndarray
    init_time: np.ndarray
    lead_time: np.ndarray

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def time(self) -> np.ndarray:
        """(n) int64: valid times."""
        return self.init_time + self.lead_time


def read(store: Store, features: Features, rows: np.ndarray, values: int = 2**23) -> Iterator[Samples]:
    """The samples of these rows in order, about `values` numbers at once; truth has the variables of features.high."""
    chosen = [[v.name for v in store.high_variables].index(v.name) for v in features.high]
    each = int(np.prod(store.high.shape[1:])) + int(np.prod(store.low.shape[1:]))
    size = max(1, values // each)
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        low, truth = store.low[some], store.high[store.high_index[some]]
        yield Samples(low, truth[:, chosen], store.low_init_time[some], store.low_lead_time[some])
