"""Bicubic interpolation corrected for elevation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dsr.verify.baselines import Baseline, NotPossible

if TYPE_CHECKING:
    from dsr.data.samples import Samples
    from dsr.data.store import Store, Variable
    from dsr.verify.training import Training


class Elevation(Baseline):
    """Bicubic interpolation of each temperature, plus a fitted lapse rate times the height missing in low topography.

    The lapse rate is the regression, over the high points, of bicubic's mean error on that height.
    """

    label = "bicubic + lapse rate"
    colour = "#CC79A7"

    def fit(self, training: Training) -> FittedElevation:
        temperatures = [i for i in training.shared if _is_temperature(training.features.high[i])]
        if not temperatures:
            raise NotPossible("no target in the low data is a temperature")
        return FittedElevation(training, _missing_height(training), temperatures)


class FittedElevation:
    """`lapse_rates`: {index of a temperature among the targets: its lapse rate in units per m}."""

    def __init__(self, training: Training, missing_height: np.ndarray, temperatures: list[int]):
        self.interpolate = training.interpolation("bicubic")
        self.lapse_rates: dict[int, float] = {}
        for i in temperatures:
            known = training.region & np.isfinite(training.cell_error[i])
            height = missing_height[known] - missing_height[known].mean()
            self.lapse_rates[i] = float(height @ training.cell_error[i][known] / max(height @ height, 1e-12))
        rate = np.array([self.lapse_rates.get(i, np.nan) for i in range(len(training.features.high))])
        self.correction = (rate[:, None, None] * missing_height).astype(np.float32)

    def __call__(self, samples: Samples) -> np.ndarray:
        return self.interpolate(samples) + self.correction


def _missing_height(training: Training) -> np.ndarray:
    """(Y, X) m: the high topography minus the interpolated low one; 0 where unknown."""
    store: Store = training.store
    heights = [i for i, v in enumerate(store.static_variables) if _is_topography(v)]
    low = store.low_static(store.static_variables[heights[0]].name) if heights else None
    if low is None:
        raise NotPossible("the store lacks the topography of both grids")
    return np.nan_to_num(store.static[heights[0]] - training.interpolations["bicubic"](low))


def _is_temperature(variable: Variable) -> bool:
    return "temperature" in (variable.standard_name or variable.long_name or variable.name).lower()


def _is_topography(variable: Variable) -> bool:
    return variable.standard_name == "surface_altitude" or variable.name in ("topography", "orography")
