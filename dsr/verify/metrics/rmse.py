"""The root mean square error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dsr.verify.metrics import Metric

if TYPE_CHECKING:
    from dsr.verify.scoring import Pair


class RMSE(Metric):
    """The root of the pooled mean square error."""

    label = "RMSE"
    in_units = True
    best = "lowest"

    def sums(self, pair: Pair) -> np.ndarray:
        return pair.square_error[..., None]

    def value(self, sums: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return np.sqrt(sums[..., 0] / weight)
