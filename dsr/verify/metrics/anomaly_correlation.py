"""The correlation of departures from climatology."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsr.verify.metrics.correlation import Correlation

if TYPE_CHECKING:
    import numpy as np

    from dsr.verify.scoring import Truth


class AnomalyCorrelation(Correlation):
    """The pooled correlation of departures from the training split's mean at the hour of day."""

    label = "anom. corr."

    def reference(self, truth: Truth) -> np.ndarray:
        assert truth.climatology is not None
        return truth.climatology
