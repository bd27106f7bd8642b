"""The table of baselines: what is used today instead of a network. To add one, write its file and add its line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from dsr.components import Component, Family

if TYPE_CHECKING:
    import numpy as np

    from dsr.data.samples import Samples
    from dsr.verify.training import Training

Fitted = Callable[["Samples"], "np.ndarray"]


class NotPossible(Exception):
    """The reason why a store does not allow a baseline."""


class Baseline(Component):
    """A method that needs no network, and how the report shows it."""

    label: ClassVar[str]
    colour: ClassVar[str] = "#444444"
    dash: ClassVar[str] = "-"

    def fit(self, training: Training) -> Fitted:
        """A function from samples to predictions (n, variable, Y, X) float32, NaN for variables without one.

        Physical bounds are applied to what it returns. Raises NotPossible if the store does not allow it.
        """
        raise NotImplementedError


BASELINES = Family(
    "baseline",
    "--baseline",
    Baseline,
    {
        "nearest": "dsr.verify.baselines.nearest:Nearest",
        "bilinear": "dsr.verify.baselines.bilinear:Bilinear",
        "bicubic": "dsr.verify.baselines.bicubic:Bicubic",
        "elevation": "dsr.verify.baselines.elevation:Elevation",
        "bicubic_bias": "dsr.verify.baselines.bicubic_bias:BicubicBias",
        "control": "dsr.verify.baselines.control:Control",
        "ensemble_mean": "dsr.verify.baselines.ensemble_mean:EnsembleMean",
        "climatology": "dsr.verify.baselines.climatology:Climatology",
        "ridge": "dsr.verify.baselines.ridge:RidgeRegression",
    },
)


def label(method: str) -> str:
    """The label of a method or of the network."""
    return BASELINES.find(method).label if method in BASELINES.table else method
