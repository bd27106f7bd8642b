"""What people do today instead of a network: interpolation, corrections of it, climatology and ridge regression."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dsr.data.interpolate import METHODS, Interpolation
from dsr.data.store import Variable
from dsr.models.ridge import Pairs, Ridge

if TYPE_CHECKING:
    from dsr.data.features import Features
    from dsr.data.store import Store


@dataclass(frozen=True)
class Batch:
    """Samples: low (n, [member,] variable, y, x) and truth (n, variable, Y, X) float32; times (n) int64 seconds."""

    low: np.ndarray
    truth: np.ndarray
    init_time: np.ndarray
    lead_time: np.ndarray

    @property
    def time(self) -> np.ndarray:
        """(n) int64: valid times."""
        return self.init_time + self.lead_time


def batches(store: Store, features: Features, samples: np.ndarray, values: int = 2**23) -> Iterator[Batch]:
    """The given samples in order, as many at once as hold about `values` numbers; truth as in features.high."""
    chosen = [[v.name for v in store.high_variables].index(v.name) for v in features.high]
    each = int(np.prod(store.high.shape[1:])) + int(np.prod(store.low.shape[1:]))
    size = max(1, values // each)
    for start in range(0, len(samples), size):
        rows = samples[start : start + size]
        low, truth = store.low[rows], store.high[store.high_index[rows]]
        yield Batch(low, truth[:, chosen], store.low_init_time[rows], store.low_lead_time[rows])


class Baselines:
    """Every baseline that a store allows, fitted on its training split; `baselines(batch)` predicts.

    Fitting streams the training split twice (means, ridge) and the validation split once. `omitted` says why a method
    is not there. Interpolation acts on the mean where there are members. Where the split is by region, what is learned
    per cell elsewhere is learned as one value for the training region.
    """

    def __init__(self, store: Store, features: Features, advance: Callable[[int], object] = lambda count: None):
        """`advance(count)` is told of every `count` samples that were read."""
        self.features, self.advance = features, advance
        self.ensemble = store.members is not None
        self.omitted: dict[str, str] = {}
        names = [v.name for v in store.low_variables]
        self.shared = [i for i, v in enumerate(features.high) if v.name in names]  # targets that the low data have
        self.low_rows = [names.index(features.high[i].name) for i in self.shared]
        self.seen_rows = [names.index(v.name) for v in features.low]  # the low variables that the network sees
        self.interpolations = {m: Interpolation(store.low_index, store.low_shape, m) for m in METHODS}
        if not self.shared:
            for method in (*METHODS, "bicubic_bias"):
                self.omitted[method] = "the low data have none of the targets"
        if not self.ensemble:
            self.omitted["control"] = self.omitted["ensemble_mean"] = "the low data have no members"
        self._fit_means(store)
        self._fit_lapse_rates(store)
        self.ridge = Ridge(store, features, lambda split: self._departures(store, split))

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        """Every method's prediction (n, variable, Y, X) float32, within physical bounds; NaN where it has none."""
        result = {}
        if self.shared:
            result = {method: self._interpolate(batch.low, method) for method in METHODS}
            if self.lapse_rates:
                rate = np.array([self.lapse_rates.get(i, np.nan) for i in range(len(self.features.high))])
                result["elevation"] = result["bicubic"] + (rate[:, None, None] * self.height).astype(np.float32)
            result["bicubic_bias"] = result["bicubic"] + self.mean_error
            if self.ensemble:
                result["control"] = self._interpolate(batch.low[:, :1], "bicubic")
                result["ensemble_mean"] = result["bicubic"].copy()
        result["climatology"] = self.climatology(batch.time)
        result["ridge"] = self._start(batch) + self.ridge(self.seen(batch))
        return {method: self.features.clip(fields) for method, fields in result.items()}

    def seen(self, batch: Batch) -> Batch:
        """The batch with the low variables that the network sees."""
        return replace(batch, low=batch.low[..., self.seen_rows, :, :])

    def climatology(self, time: np.ndarray) -> np.ndarray:
        """(n, variable, Y, X): the training mean at the hour of day (UTC); over all hours for one never seen."""
        return np.stack([self.by_hour.get(int(hour), self.mean) for hour in _hour_of_day(time)])

    def _interpolate(self, low: np.ndarray, method: str) -> np.ndarray:
        """(n, variable, Y, X) float32: the (ensemble mean) low field interpolated; NaN where low lacks the variable."""
        fields = low.mean(1) if self.ensemble else low
        result = np.full((len(low), len(self.features.high), *self.features.shape), np.nan, np.float32)
        result[:, self.shared] = self.interpolations[method](fields[:, self.low_rows])
        return result

    def _start(self, batch: Batch) -> np.ndarray:
        """What ridge regression departs from: bicubic + bias, or the mean where the network sees no such low field."""
        names = {v.name for v in self.features.low}
        seen = [i for i in self.shared if self.features.high[i].name in names]
        start = np.repeat(self.mean[None], len(batch.low), 0)
        start[:, seen] = (self._interpolate(batch.low, "bicubic") + self.mean_error)[:, seen]
        return start

    def _departures(self, store: Store, split: str) -> Pairs:
        for batch in batches(store, self.features, store.samples(split)):
            yield self.seen(batch), batch.truth - self._start(batch)
            self.advance(len(batch.truth))

    def _fit_means(self, store: Store) -> None:
        """Mean error of bicubic, and mean truth at each hour of day; missing values are left out."""
        shape = (len(self.features.high), *self.features.shape)
        error, everything = _Mean(shape), _Mean(shape)
        by_hour: dict[int, _Mean] = defaultdict(lambda: _Mean(shape))
        for batch in batches(store, self.features, store.samples("train")):
            error.add(batch.truth - self._interpolate(batch.low, "bicubic"))
            everything.add(batch.truth)
            hours = _hour_of_day(batch.time)
            for hour in np.unique(hours):
                by_hour[int(hour)].add(batch.truth[hours == hour])
            self.advance(len(batch.truth))
        self.cell_error = error.value()
        region = None if store.region is None else store.mask("train")
        self.mean_error, self.mean = error.value(region), everything.value(region)
        values = {hour: mean.value(region) for hour, mean in by_hour.items()}
        self.by_hour = {hour: np.where(np.isnan(v), self.mean, v) for hour, v in values.items()}

    def _fit_lapse_rates(self, store: Store) -> None:
        """Of each temperature: the regression of bicubic's mean error on the height that the low topography misses."""
        self.lapse_rates: dict[int, float] = {}
        temperatures = [i for i in self.shared if _is_temperature(self.features.high[i])]
        heights = [i for i, v in enumerate(store.static_variables) if _is_topography(v)]
        low = store.low_static(store.static_variables[heights[0]].name) if heights else None
        if not temperatures:
            self.omitted["elevation"] = "no target in the low data is a temperature"
        elif low is None:
            self.omitted["elevation"] = "the store lacks the topography of both grids"
        else:
            missed = store.static[heights[0]] - self.interpolations["bicubic"](low)
            self.height = np.nan_to_num(missed)
            for i in temperatures:
                good = store.mask("train") & np.isfinite(self.cell_error[i])
                height = self.height[good] - self.height[good].mean()
                self.lapse_rates[i] = float(height @ self.cell_error[i][good] / max(height @ height, 1e-12))


class _Mean:
    """The mean of fields (n, variable, Y, X) that stream by, missing values left out."""

    def __init__(self, shape: tuple[int, ...]):
        self.sum, self.count = np.zeros(shape), np.zeros(shape, np.int64)

    def add(self, fields: np.ndarray) -> None:
        good = np.isfinite(fields)
        self.sum += np.where(good, fields, 0).sum(0, dtype=np.float64)
        self.count += good.sum(0)

    def value(self, region: np.ndarray | None = None) -> np.ndarray:
        """(variable, Y, X) float32; given a region, the mean over it stands everywhere. NaN where nothing was."""
        total, count = self.sum, self.count
        if region is not None:
            total, count = (np.where(region, a, 0).sum((1, 2), keepdims=True) + 0 * a for a in (total, count))
        return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _hour_of_day(time: np.ndarray) -> np.ndarray:
    return time // 3600 % 24


def _is_temperature(variable: Variable) -> bool:
    return "temperature" in (variable.standard_name or variable.long_name or variable.name).lower()


def _is_topography(variable: Variable) -> bool:
    return variable.standard_name == "surface_altitude" or variable.name in ("topography", "orography")
