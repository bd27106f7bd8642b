"""The table of metrics and their base class. To add one, write its file and add its line."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from dsr.components import Component, Family

if TYPE_CHECKING:
    import numpy as np

    from dsr.verify.scoring import Pair


class Metric(Component):
    """A score of predictions against the truth, pooled over samples: sums for each sample, and a value from the sums.

    A NaN in the sums, where a prediction is missing but the truth is not, must make the value NaN, never better.
    """

    label: ClassVar[str]  # heads its column in tables
    in_units: ClassVar[bool] = False  # whether its value is in the variable's units
    best: ClassVar[Literal["lowest", "highest", "zero"]]
    sampled: ClassVar[bool] = False  # whether it uses only some evenly spaced samples, since it is expensive

    def sums(self, pair: Pair) -> np.ndarray:
        """(n, variable, term) float64: what is summed over samples."""
        raise NotImplementedError

    def value(self, sums: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """(variable): the value from the sums (variable, term) and the total weight (variable) of some samples."""
        raise NotImplementedError


METRICS = Family(
    "metric",
    "--metric",
    Metric,
    {
        "rmse": "dsr.verify.metrics.rmse:RMSE",
        "mae": "dsr.verify.metrics.mae:MAE",
        "bias": "dsr.verify.metrics.bias:Bias",
        "correlation": "dsr.verify.metrics.correlation:Correlation",
        "anomaly_correlation": "dsr.verify.metrics.anomaly_correlation:AnomalyCorrelation",
        "ssim": "dsr.verify.metrics.ssim:SSIM",
    },
)
