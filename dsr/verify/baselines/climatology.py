"""The mean at the hour of day."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsr.verify.baselines import Baseline

if TYPE_CHECKING:
    from dsr.verify.baselines import Fitted
    from dsr.verify.training import Training


class Climatology(Baseline):
    """The training split's mean at the hour of day (UTC); over all hours for an hour without data."""

    label = "climatology"
    colour = "#777777"
    dash = "-."

    def fit(self, training: Training) -> Fitted:
        return lambda samples: training.climatology(samples.time)
