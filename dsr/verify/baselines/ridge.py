"""Ridge regression: simple, and hard to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsr.models.ridge import Ridge
from dsr.verify.baselines import Baseline

if TYPE_CHECKING:
    import numpy as np

    from dsr.data.samples import Samples
    from dsr.verify.training import Training


class RidgeRegression(Baseline):
    """Bicubic interpolation minus its mean error, plus a ridge regression on the input of the network."""

    label = "ridge regression"
    colour = "#0072B2"

    def fit(self, training: Training) -> FittedRidge:
        return FittedRidge(training)


class FittedRidge:
    """`regression` predicts the departures of the truth from `_start`."""

    def __init__(self, training: Training):
        self.training = training
        features = training.features
        names = {v.name for v in features.low}
        self.seen = [i for i in training.shared if features.high[i].name in names]
        self.regression = Ridge(
            training.store,
            features,
            lambda split: ((training.seen(s), s.truth - self._start(s)) for s in training.read(split)),
        )

    def __call__(self, samples: Samples) -> np.ndarray:
        return self._start(samples) + self.regression(self.training.seen(samples))

    def _start(self, samples: Samples) -> np.ndarray:
        """Bicubic minus its mean error, or the mean if the network does not use the variable's low field."""
        start = self.training.mean[None].repeat(len(samples), 0)
        if self.seen:
            corrected = self.training.interpolate(samples, "bicubic") + self.training.mean_error
            start[:, self.seen] = corrected[:, self.seen]
        return start
