"""The gradient noise scale, measured from the slots' gradients that an update's reduction sees.

Plain float arithmetic, without torch, on numbers that are the same on every rank.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

LEAST = 1e-9  # of W1 - W2, see `Noise`: below it the measured slots have no points, or one has all of the update's
DECAY = 0.98  # of the averages, per update: they reach back about 50 updates


@dataclass
class Noise:
    """Running averages of two unbiased estimates (McCandlish et al. 2018, arXiv:1812.06162, appendix A.1).

    The paper's small batches weigh the same. Here slot s has the share w_s of the update's valid points (sum w_s = 1),
    and the slots' gradients g_s add up to the update's, g (before clipping). Given where the points are, the g_s are
    independent and their means are w_s G, with the true gradient G. With B samples in the update, tr(Sigma) as B times
    the variance of g, and the sums W1 = sum w_s, W2 = sum w_s^2 and Q = sum |g_s|^2 over the measured slots:
        E |g|^2 = |G|^2 + tr(Sigma)/B    and    E Q = W2 |G|^2 + W1 tr(Sigma)/B,
    if the measured slots' part of the variance is W1, as it is on average over an epoch's orders, whatever the variance
    of one slot depends on; of all slots it is 1 in any case. Solved:
        square   = (W1 |g|^2 - Q) / (W1 - W2)      estimates |G|^2, the true gradient's squared norm,
        variance = B (Q - W2 |g|^2) / (W1 - W2)    estimates tr(Sigma), the trace of one sample's covariance,
    of a sample with the average number of values. With equal weights these are the paper's estimates. The two are
    averaged separately, with exponential weights that sum to 1 from the first update on; their ratio is the
    noise scale B_simple = tr(Sigma) / |G|^2 in samples. An epoch draws no sample twice, so with a training set of N the
    estimate of |G|^2 is |G_N|^2 - tr(Sigma)/N, with the gradient G_N of the training set: that of the distribution from
    which the training set is a sample. B_simple may exceed N, where almost everything is noise. All fields are plain
    numbers, so that `vars` of it is JSON.
    """

    weight: float = 0.0  # sum of the weights, and of their squares
    weight_squared: float = 0.0
    sums: list[float] = field(default_factory=lambda: [0.0] * 5)  # v, s, v v, v s, s s, weighted

    def add(self, squares: Sequence[float], weights: Sequence[float], norm: float, batch: int) -> None:
        """Add an update of `batch` samples: its gradient's norm, and the measured slots' squared norms and weights."""
        small, big, first, second = sum(squares), norm * norm, sum(weights), sum(weight * weight for weight in weights)
        spread = first - second
        if not math.isfinite(small) or spread < LEAST:  # a norm beyond float32, which the run reports itself
            return
        square = (first * big - small) / spread
        variance = batch * (small - second * big) / spread
        self.weight = DECAY * self.weight + 1
        self.weight_squared = DECAY**2 * self.weight_squared + 1
        new = (variance, square, variance * variance, variance * square, square * square)
        self.sums = [DECAY * total + value for total, value in zip(self.sums, new, strict=True)]

    @property
    def variance(self) -> float:
        """tr(Sigma), averaged; it may be negative."""
        return self.sums[0] / self.weight

    @property
    def square(self) -> float:
        """|G|^2, averaged; where noise dominates it may be negative."""
        return self.sums[1] / self.weight

    @property
    def scale(self) -> float | None:
        """B_simple in samples. None: nothing was measured, or noise hides the gradient completely."""
        return max(self.variance, 0.0) / self.square if self.weight and self.square > 0 else None

    def interval(self, confidence: float = 0.95) -> tuple[float, float | None] | None:
        """B_simple's confidence interval after Fieller (1954), for the ratio of two correlated averages.

        Their covariance is that of the single updates' estimates, over the effective number of updates
        (sum w)^2 / sum w^2; Student's t holds their quotients. It says nothing about a drift over the updates averaged.
        (low, None): no upper bound, since a true gradient of 0 lies within the noise. None: fewer than two updates.
        """
        if self.weight <= 1:
            return None
        from scipy.special import stdtrit

        share = self.weight_squared / self.weight**2  # 1 / effective number
        t2 = float(stdtrit(1 / share - 1, (1 + confidence) / 2)) ** 2
        v, s, vv, vs, ss = (total / self.weight for total in self.sums)
        factor = t2 * share / (1 - share)
        # the ratios r with (v - r s)^2 <= t^2 Var(v - r s): a r^2 - 2 b r + c <= 0
        a, b, c = s * s - factor * (ss - s * s), v * s - factor * (vs - v * s), v * v - factor * (vv - v * v)
        root = math.sqrt(max(b * b - a * c, 0.0))
        low = c / (b + root) if c > 0 and b + root > 0 else 0.0
        return low, (max(0.0, (b + root) / a) if a > 0 and s > 0 else None)


def unmeasured(exact: bool, slots: int) -> str:
    """Why a run has no noise scale; empty where it has one."""
    if not exact:
        return "DeepSpeed's own reduction does not show the slots' gradients"
    return "" if slots > 1 else "it takes two slots or more in an update"
