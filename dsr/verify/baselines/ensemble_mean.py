"""The mean of the ensemble."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsr.verify.baselines import Baseline, NotPossible

if TYPE_CHECKING:
    from dsr.verify.baselines import Fitted
    from dsr.verify.training import Training


class EnsembleMean(Baseline):
    """Bicubic interpolation of the mean of the members: the same as bicubic for an ensemble."""

    label = "ensemble mean"
    colour = "#44AA99"
    dash = ":"

    def fit(self, training: Training) -> Fitted:
        if not training.ensemble:
            raise NotPossible("the low data have no members")
        return training.interpolation("bicubic")
