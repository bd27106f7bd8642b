"""Bicubic interpolation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsr.verify.baselines import Baseline

if TYPE_CHECKING:
    from dsr.verify.baselines import Fitted
    from dsr.verify.training import Training


class Bicubic(Baseline):
    """The (ensemble mean) low-resolution field, interpolated."""

    label = "bicubic"
    colour = "#009E73"

    def fit(self, training: Training) -> Fitted:
        return training.interpolation("bicubic")
