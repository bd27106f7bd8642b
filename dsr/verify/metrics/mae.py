"""The mean absolute error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dsr.verify.metrics import Metric

if TYPE_CHECKING:
    from dsr.verify.scoring import Pair


class MAE(Metric):
    """The pooled mean absolute error."""

    label = "MAE"
    in_units = True
    best = "lowest"

    def sums(self, pair: Pair) -> np.ndarray:
        return pair.total(np.abs(pair.error))[..., None]

    def value(self, sums: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return sums[..., 0] / weight
