"""The ensemble's control member alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dsr.verify.baselines import Baseline, NotPossible

if TYPE_CHECKING:
    from dsr.verify.baselines import Fitted
    from dsr.verify.training import Training


class Control(Baseline):
    """Bicubic interpolation of the first member."""

    label = "control member"
    colour = "#F0E442"

    def fit(self, training: Training) -> Fitted:
        if not training.ensemble:
            raise NotPossible("the low data have no members")
        interpolate = training.interpolation("bicubic")
        return lambda samples: interpolate(replace(samples, low=samples.low[:, :1]))
