"""What baselines learn from the training split: mean errors, and mean fields by hour of day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dsr.data import samples as store_samples
from dsr.data.interpolate import METHODS, Interpolation
from dsr.data.samples import Samples
from dsr.verify.baselines import NotPossible

if TYPE_CHECKING:
    from dsr.data.features import Features
    from dsr.data.store import Store


class Training:
    """A store's training split, read once for the means that several baselines and metrics share.

    With members, their mean is interpolated. If the split is by region, one value for the training region replaces the
    values per cell.
    """

    def __init__(self, store: Store, features: Features, advance: Callable[[int], object] = lambda count: None):
        """`advance(count)` is called after every `count` samples that are read."""
        self.store, self.features, self.advance = store, features, advance
        self.ensemble = store.members is not None
        names = [v.name for v in store.low_variables]
        self.shared = [
            i for i, v in enumerate(features.high) if v.name in names
        ]  # targets that are also in the low data
        self.low_rows = [names.index(features.high[i].name) for i in self.shared]
        self.seen_rows = [names.index(v.name) for v in features.low]  # the low variables that the network uses
        self.interpolations = {m: Interpolation(store.low_index, store.low_shape, m) for m in METHODS}
        self.region = store.mask("train")
        self._fit_means()

    def read(self, split: str) -> Iterator[Samples]:
        """The samples of a split in order, in batches."""
        for samples in store_samples.read(self.store, self.features, self.store.samples(split)):
            yield samples
            self.advance(len(samples))

    def seen(self, samples: Samples) -> Samples:
        """The samples with only the low variables that the network uses."""
        return replace(samples, low=samples.low[..., self.seen_rows, :, :])

    def climatology(self, time: np.ndarray) -> np.ndarray:
        """(n, variable, Y, X): the training mean at the hour of day (UTC); over all hours for one without data."""
        return np.stack([self.by_hour.get(int(hour), self.mean) for hour in _hour_of_day(time)])

    def interpolation(self, method: str) -> Callable[[Samples], np.ndarray]:
        """`interpolate` with this method, as a function of samples. Raises NotPossible if it has no target."""
        if not self.shared:
            raise NotPossible("no target is in the low data")
        return lambda samples: self.interpolate(samples, method)

    def interpolate(self, samples: Samples, method: str) -> np.ndarray:
        """(n, variable, Y, X) float32: the (ensemble mean) low field interpolated; NaN if low lacks the variable."""
        low = samples.low[..., self.low_rows, :, :]
        fields = self.interpolations[method](low.mean(1) if self.ensemble else low)
        if len(self.shared) == len(self.features.high):
            return fields
        result = np.full((len(low), len(self.features.high), *self.features.shape), np.nan, np.float32)
        result[:, self.shared] = fields
        return result

    def _fit_means(self) -> None:
        """Set the mean error of bicubic, and the mean truth at each hour of day, without missing values."""
        shape = (len(self.features.high), *self.features.shape)
        statistics = [self.features.statistics["high"][v.name]["mean"] for v in self.features.high]
        near = np.array(statistics, np.float64)[:, None, None]
        error = _Mean(shape)
        hours: dict[int, _Mean] = defaultdict(lambda: _Mean(shape, near))
        for samples in self.read("train"):
            if self.shared:
                error.add(samples.truth - self.interpolate(samples, "bicubic"))
            hour_of_day = _hour_of_day(samples.time)
            for hour in np.unique(hour_of_day):
                hours[int(hour)].add(samples.truth[hour_of_day == hour])
        self.cell_error = error.value()
        region = None if self.store.region is None else self.region
        self.mean_error = error.value(region)
        self.mean = _Mean.joined(list(hours.values())).value(region)
        self.by_hour = {}
        for hour in sorted(hours):
            value = hours.pop(hour).value(region)  # one at a time: large domains have large fields
            self.by_hour[hour] = np.where(np.isnan(value), self.mean, value)


class _Mean:
    """The running mean of fields (n, variable, Y, X), without missing values, held as float32.

    It holds departures from a value `near` the mean (variable, 1, 1), so that no digits are lost.
    """

    def __init__(self, shape: tuple[int, ...], near: np.ndarray | float = 0.0):
        self.near = near
        self.mean = np.zeros(shape, np.float32)
        self.count: np.ndarray = np.zeros((1, 1, 1), np.int32)  # per point, as soon as a value is missing

    def add(self, fields: np.ndarray) -> None:
        good = np.isfinite(fields)
        complete = good.all()
        count = np.full((1, 1, 1), len(fields), np.int32) if complete else good.sum(0, dtype=np.int32)
        departures = fields - self.near
        total = (departures if complete else np.where(good, departures, 0)).sum(0, dtype=np.float64)
        self._add(total, count)

    def _add(self, total: np.ndarray, count: np.ndarray) -> None:
        self.count = self.count + count
        self.mean += (total - count * self.mean) / np.maximum(self.count, 1)

    @classmethod
    def joined(cls, means: list[_Mean]) -> _Mean:
        """The mean over all samples of these means."""
        whole = cls(means[0].mean.shape, means[0].near)
        for mean in means:
            whole._add(mean.count * mean.mean.astype(np.float64), mean.count)
        return whole

    def value(self, region: np.ndarray | None = None) -> np.ndarray:
        """(variable, Y, X) float32; given a region, its mean everywhere. NaN without data."""
        mean, count = self.mean.astype(np.float64), np.broadcast_to(self.count, self.mean.shape)
        if region is not None:
            count = np.where(region, count, 0)
            total, count = (a.sum((1, 2), keepdims=True) for a in (count * mean, count))
            mean, count = (np.broadcast_to(a, self.mean.shape) for a in (total / np.maximum(count, 1), count))
        return np.where(count > 0, mean + self.near, np.nan).astype(np.float32)


def _hour_of_day(time: np.ndarray) -> np.ndarray:
    return time // 3600 % 24
