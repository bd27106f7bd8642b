"""The correlation of departures from climatology."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsr.verify.metrics.correlation import Correlation

if TYPE_CHECKING:
    from dsr.verify.scoring import Departure, Truth


class AnomalyCorrelation(Correlation):
    """The pooled correlation of departures from the training split's mean at the hour of day."""

    label = "anom. corr."

    def departure(self, truth: Truth) -> Departure:
        return truth.anomaly
