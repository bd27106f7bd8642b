"""The correlation of predictions with the truth, over all points and samples together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dsr.verify.metrics import Metric

if TYPE_CHECKING:
    from dsr.verify.scoring import Departure, Pair, Truth


class Correlation(Metric):
    """The pooled correlation coefficient; NaN where a field has no variance."""

    label = "corr."
    best = "highest"

    def departure(self, truth: Truth) -> Departure:
        """The truth's departures from a reference near it, so that their squares lose no digits."""
        return truth.departure

    def sums(self, pair: Pair) -> np.ndarray:
        """Of the truth's departures t and the errors d: t, t t, d, d d, d t; a prediction departs by t + d."""
        t = self.departure(pair.truth)
        dt = pair.total(pair.error * t.fields)
        return np.stack([t.total, t.total_square, pair.mean_error, pair.square_error, dt], -1)

    def value(self, sums: np.ndarray, weight: np.ndarray) -> np.ndarray:
        t, tt, d, dd, dt = np.moveaxis(sums / weight[..., None], -1, 0)
        p, pp, pt = t + d, tt + 2 * dt + dd, tt + dt
        variances = (pp - p**2) * (tt - t**2)
        return (pt - p * t) / np.sqrt(np.where(variances > 1e-12 * tt**2, variances, np.nan))
