"""Bilinear interpolation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsr.verify.baselines import Baseline

if TYPE_CHECKING:
    from dsr.verify.baselines import Fitted
    from dsr.verify.training import Training


class Bilinear(Baseline):
    """The (ensemble mean) low-resolution field, interpolated."""

    label = "bilinear"
    colour = "#56B4E9"
    dash = "--"

    def fit(self, training: Training) -> Fitted:
        return training.interpolation("bilinear")
