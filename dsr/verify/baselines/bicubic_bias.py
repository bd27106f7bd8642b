"""Bicubic interpolation with its mean error removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsr.verify.baselines import Baseline

if TYPE_CHECKING:
    from dsr.verify.baselines import Fitted
    from dsr.verify.training import Training


class BicubicBias(Baseline):
    """Bicubic interpolation minus its mean error at each high point on the training split."""

    label = "bicubic + bias"
    colour = "#E69F00"
    dash = "--"

    def fit(self, training: Training) -> Fitted:
        interpolate = training.interpolation("bicubic")
        return lambda samples: interpolate(samples) + training.mean_error
