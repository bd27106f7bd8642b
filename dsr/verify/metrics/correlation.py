"""The correlation of predictions with the truth, over all points and samples together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dsr.verify.metrics import Metric

if TYPE_CHECKING:
    from dsr.verify.scoring import Pair, Truth


class Correlation(Metric):
    """The pooled correlation coefficient; NaN where a field has no variance."""

    label = "corr."
    best = "highest"

    def reference(self, truth: Truth) -> np.ndarray:
        """What departures are taken from: a field of any shape that fits the truth's."""
        assert truth.mean is not None  # near the fields, so that their squares lose no digits
        return truth.mean

    def sums(self, pair: Pair) -> np.ndarray:
        """Of the truth's departures t and the errors d: t, t t, d, d d, d t; a prediction departs by t + d."""
        departure = pair.truth.fields - self.reference(pair.truth)
        if not pair.truth.complete:
            departure = np.where(pair.truth.scored, departure, 0)
        departures = pair.total(departure), pair.total(departure**2), pair.total(pair.error * departure)
        return np.stack([*departures[:2], pair.mean_error, pair.square_error, departures[2]], -1)

    def value(self, sums: np.ndarray, weight: np.ndarray) -> np.ndarray:
        t, tt, d, dd, dt = np.moveaxis(sums / weight[..., None], -1, 0)
        p, pp, pt = t + d, tt + 2 * dt + dd, tt + dt
        variances = (pp - p**2) * (tt - t**2)
        return (pt - p * t) / np.sqrt(np.where(variances > 1e-12 * tt**2, variances, np.nan))
