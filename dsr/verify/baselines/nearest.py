"""The nearest low-resolution value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsr.verify.baselines import Baseline

if TYPE_CHECKING:
    from dsr.verify.baselines import Fitted
    from dsr.verify.training import Training


class Nearest(Baseline):
    """The low-resolution field, (ensemble) mean, at the nearest low cell."""

    label = "nearest"
    colour = "#999999"
    dash = ":"

    def fit(self, training: Training) -> Fitted:
        return training.interpolation("nearest")
