"""How a forecast differs from the data that a network was trained on: one line of text per difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsr.data.domain import Domain
from dsr.data.features import Features
from dsr.data.pairing import AnyArchive, intervals
from dsr.data.store import Variable


@dataclass
class Reach:
    """How far the low-resolution input of a network exceeds the range of its training data, for each variable."""

    variables: list[Variable]
    trained: dict[str, np.ndarray]  # minimum, maximum, std: (variable) float64
    lowest: np.ndarray
    highest: np.ndarray
    beyond: np.ndarray  # (variable) int64: number of values more than one standard deviation outside the range
    count: np.ndarray

    @classmethod
    def of(cls, features: Features) -> Reach:
        keys, n = ("minimum", "maximum", "std"), len(features.low)
        trained = {key: np.array([features.statistics["low"][v.name][key] for v in features.low]) for key in keys}
        return cls(features.low, trained, np.full(n, np.inf), np.full(n, -np.inf), np.zeros(n, int), np.zeros(n, int))

    def add(self, low: np.ndarray) -> None:
        """Count fields, (n, [member,] variable, y, x) in physical units; missing values are skipped."""
        values = np.moveaxis(low, -3, 0).reshape(len(self.variables), -1)
        least, most = (self.trained[key][:, None] for key in ("minimum", "maximum"))
        std = self.trained["std"][:, None]
        self.lowest = np.fmin(self.lowest, np.fmin.reduce(values, axis=1))
        self.highest = np.fmax(self.highest, np.fmax.reduce(values, axis=1))
        self.beyond += ((values < least - std) | (values > most + std)).sum(1)
        self.count += np.isfinite(values).sum(1)

    def cautions(self) -> list[str]:
        """One line for each variable that goes far outside its range in training."""
        return [
            f"caution: {variable.name} is {self.lowest[i]:.4g} to {self.highest[i]:.4g} {variable.units} in the input, "
            f"{self.trained['minimum'][i]:.4g} to {self.trained['maximum'][i]:.4g} in training; "
            f"{100 * self.beyond[i] / self.count[i]:.2g} % of its values lie beyond that by more than a standard "
            f"deviation ({self.trained['std'][i]:.3g})"
            for i, variable in enumerate(self.variables)
            if self.beyond[i]
        ]


def other_calendar(trained_on: Features, features: Features) -> list[str]:
    if not features.seasonal or features.calendar == trained_on.calendar:
        return []
    return [
        f"caution: the input has calendar {features.calendar}, the training data had {trained_on.calendar}; the season "
        "is taken from the phase of a date in the year of its calendar"
    ]


def other_intervals(domain: Domain, archive: AnyArchive) -> list[str]:
    usual = domain.interval[1] - domain.interval[0]
    lines = []
    for name, hours_covered in intervals(archive).items():
        lengths = sorted({round((end - start) * 3600) for start, end in hours_covered})
        if lengths != [usual]:
            hours = ", ".join(f"{seconds / 3600:g}" for seconds in lengths)
            lines.append(f"caution: {name} is over {hours} h; in training it was over {usual / 3600:g} h")
    return lines
