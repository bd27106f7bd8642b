"""Structural similarity (Wang et al. 2004, doi:10.1109/TIP.2003.819861)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dsr.verify.metrics import Metric

if TYPE_CHECKING:
    from dsr.verify.scoring import Pair

WINDOW = 7


class SSIM(Metric):
    """The mean over samples of the mean structural similarity of two fields, in windows of 7 x 7 points.

    The same values as `structural_similarity` of scikit-image, which takes one field at a time. Only windows that lie
    inside the domain and have no missing value are used; samples without such a window are skipped.
    """

    label = "SSIM"
    best = "highest"
    sampled = True

    def sums(self, pair: Pair) -> np.ndarray:
        """The similarity of each sample, and 1; 0 and 0 for a sample without a whole window."""
        from scipy.ndimage import minimum_filter

        assert pair.truth.span is not None
        good = pair.truth.scored & np.isfinite(pair.prediction)
        whole = minimum_filter(good, size=(1, 1, WINDOW, WINDOW), mode="constant", cval=False)
        whole &= pair.truth.span > 0
        p, t = (np.where(good, field, 0.0).astype(np.float64) for field in (pair.prediction, pair.truth.fields))
        count = whole.sum((2, 3))
        total = np.where(whole, _similarity(p, t, pair.truth.span), 0).sum((2, 3))
        return np.stack([total / np.maximum(count, 1), count > 0], -1)

    def value(self, sums: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return sums[..., 0] / sums[..., 1]


def _similarity(p: np.ndarray, t: np.ndarray, span: np.ndarray) -> np.ndarray:
    """The similarity of the windows around each point, with sample (co)variances."""
    from scipy.ndimage import uniform_filter

    def mean(values: np.ndarray) -> np.ndarray:
        return uniform_filter(values, size=(1, 1, WINDOW, WINDOW))

    points = WINDOW**2
    mean_p, mean_t = mean(p), mean(t)
    unbiased = points / (points - 1)
    var_p, var_t = unbiased * (mean(p * p) - mean_p**2), unbiased * (mean(t * t) - mean_t**2)
    covariance = unbiased * (mean(p * t) - mean_p * mean_t)
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        luminance = (2 * mean_p * mean_t + c1) / (mean_p**2 + mean_t**2 + c1)
        return luminance * (2 * covariance + c2) / (var_p + var_t + c2)
