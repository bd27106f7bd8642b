"""The scoring kit: sums over each sample's points, which every metric's value over many samples is made of.

Training's validation, evaluations and studies all score with it. Cells are weighted by area, missing truth is left out,
and everything is in physical units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dsr.verify.metrics import Metric


@dataclass(frozen=True)
class Truth:
    """The true fields of some samples, and what metrics may compare them with."""

    fields: np.ndarray  # (n, variable, Y, X) float32; any number where `weight` is 0
    weight: np.ndarray  # (n, variable, Y, X) float64: a cell's area, 0 where the truth is missing or not to be scored
    mean: np.ndarray | None = None  # (variable, 1, 1): the mean of the training split
    span: np.ndarray | None = None  # (variable, 1, 1): the range of the training split
    climatology: np.ndarray | None = None  # (n, variable, Y, X): the mean of the training split at the hour of day

    @classmethod
    def of(cls, fields: np.ndarray, area: np.ndarray, **references: np.ndarray) -> Truth:
        """The truth from fields that are NaN where it is missing; area (Y, X) float64."""
        present = np.isfinite(fields)
        return cls(np.where(present, fields, 0), present * area, **references)

    def total(self, values: np.ndarray) -> np.ndarray:
        """(n, variable, Y, X) -> (n, variable) float64: the weighted sum over each sample's points."""
        return (self.weight * values).sum((2, 3))

    @cached_property
    def departure(self) -> Departure:
        """From the mean."""
        assert self.mean is not None
        return Departure.of(self, self.mean)

    @cached_property
    def anomaly(self) -> Departure:
        """From the climatology."""
        assert self.climatology is not None
        return Departure.of(self, self.climatology)

    @cached_property
    def total_weight(self) -> np.ndarray:
        """(n, variable) float64."""
        return self.weight.sum((2, 3))

    @cached_property
    def scored(self) -> np.ndarray:
        """(n, variable, Y, X) bool: the points that count."""
        return self.weight > 0

    @cached_property
    def complete(self) -> bool:
        """Whether all points count."""
        return bool(self.scored.all())


@dataclass(frozen=True)
class Departure:
    """The truth minus a reference, 0 at points that do not count; the `total` of it, and of its square."""

    fields: np.ndarray
    total: np.ndarray
    total_square: np.ndarray

    @classmethod
    def of(cls, truth: Truth, reference: np.ndarray) -> Departure:
        fields = truth.fields - reference
        if not truth.complete:
            fields = np.where(truth.scored, fields, 0)
        return cls(fields, truth.total(fields), truth.total(fields**2))


@dataclass(frozen=True)
class Pair:
    """What one method predicted, (n, variable, Y, X) float32, and the truth."""

    prediction: np.ndarray
    truth: Truth

    @cached_property
    def error(self) -> np.ndarray:
        """Prediction minus truth; 0 at points that do not count. NaN where the prediction is missing but counts."""
        error = self.prediction - self.truth.fields
        return error if self.truth.complete else np.where(self.truth.scored, error, 0)

    @cached_property
    def mean_error(self) -> np.ndarray:
        """`total` of the error."""
        return self.total(self.error)

    @cached_property
    def square_error(self) -> np.ndarray:
        """`total` of the squared error."""
        return self.total(self.error**2)

    def total(self, values: np.ndarray) -> np.ndarray:
        """The truth's `total`."""
        return self.truth.total(values)


class Tally:
    """The sums of several metrics for several methods over samples that come in batches, in order."""

    def __init__(self, metrics: Mapping[str, Metric]):
        self.metrics = metrics
        self.sums: dict[tuple[str, str], list[np.ndarray]] = {}  # (metric, method) -> [(n, variable, term)]
        self.weights: list[np.ndarray] = []  # [(n, variable)]

    def add(self, truth: Truth, predictions: Mapping[str, np.ndarray]) -> None:
        """Add the next samples; predictions: {method: (n, variable, Y, X)}, the same methods every time."""
        self.weights.append(truth.total_weight)
        for method, prediction in predictions.items():
            pair = Pair(prediction, truth)
            for name, metric in self.metrics.items():
                self.sums.setdefault((name, method), []).append(metric.sums(pair))

    @property
    def methods(self) -> list[str]:
        """The methods that were added, in order."""
        return list(dict.fromkeys(method for _, method in self.sums))

    def weight(self) -> np.ndarray:
        """(sample, variable) float64."""
        return np.concatenate(self.weights)

    def of(self, metric: str, method: str) -> np.ndarray:
        """(sample, variable, term) float64: the sums of one metric for one method."""
        return np.concatenate(self.sums[metric, method])

    def values(self, metric: str, method: str, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """(variable): the metric's value for a method over the samples of these rows; NaN where there is none."""
        return pooled(self.metrics[metric], self.of(metric, method)[rows], self.weight()[rows])


def pooled(metric: Metric, sums: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(variable): a metric's value over many samples, from its sums (sample, variable, term) and (sample, variable).

    The samples are added one after the other in float64, so that the same samples in the same order give the same bits.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return metric.value(np.add.accumulate(sums)[-1], np.add.accumulate(weight)[-1])
