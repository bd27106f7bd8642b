"""The mean error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsr.verify.metrics import Metric

if TYPE_CHECKING:
    import numpy as np

    from dsr.verify.scoring import Pair


class Bias(Metric):
    """The pooled mean of prediction minus truth."""

    label = "bias"
    in_units = True
    best = "zero"

    def sums(self, pair: Pair) -> np.ndarray:
        return pair.mean_error[..., None]

    def value(self, sums: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return sums[..., 0] / weight
