"""How well low and high match: statistics of a bounded sample of a store's pairs, compared on the low grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from dsr.data.coarsening import Coarsening
from dsr.data.registration import MIN_SAMPLES, correlation, departures, finite_mean, is_displaced, peak, shifts
from dsr.data.store import Store

BUDGET = 2**26  # values read for the comparison, and as many again for lags in time: this takes seconds
MAX_PAIRS, MIN_PAIRS = 200, 12  # samples
REACHES = (6, 3, 2, 1)  # longest lag in time, in steps of the high archive: the first one that the runs allow
LEVELS = np.array([0.001, 0.01, *np.arange(1, 20) * 0.05, 0.99, 0.999])  # of the quantiles
MAX_VALUES = 2_000_000  # used for quantiles, at most
MIN_LAGGED = 10  # pairs: with fewer, a better match at another time is not reported

Progress = Callable[[Iterable[int], str], Iterable[int]]  # iterates over rows and shows progress
Lags = dict[float, np.ndarray]  # {hours: (n) correlation of departures in each of n pairs}


@dataclass
class Sample:
    """A sample of a store's pairs on its low grid; fields are float32, NaN where missing."""

    rows: np.ndarray  # (n) int64: indices of samples
    names: list[str]  # the variables (v) that low and high share
    low: np.ndarray  # (n, v, y, x): the mean of the members
    first_member: np.ndarray  # (n, v, y, x): the first member
    coarse: np.ndarray  # (n, v, y, x): high, coarsened
    area: np.ndarray  # (y, x) float64: of the low cells
    missing_low: np.ndarray  # (low variable, y, x): the share of the sample that is missing
    missing_high: np.ndarray  # (high variable, Y, X)


@dataclass
class Group:
    """Low minus coarsened high, averaged over the map and over the samples at one hour."""

    hours: float
    bias: float
    error: float  # the standard error of the bias
    samples: int


@dataclass
class Match:
    """Statistics of one variable over the sample, in its units; cells are weighted by area."""

    spatial_correlation: float | None  # correlation over the map, mean over samples
    temporal_correlation: float | None  # correlation of departures from each cell's mean
    bias: float  # the mean of low minus coarsened high
    rmse: float
    ratio: float  # of totals, low over coarsened high
    spread: float  # the standard deviation of coarsened high
    quantiles: np.ndarray  # (2, level): of low (its first member) and of coarsened high
    displacement: (
        tuple[float, float] | None
    )  # low rows and columns by which low is displaced against high; None: unknown
    shifts: np.ndarray  # (2 reach + 1, 2 reach + 1): correlation if low is shifted by that many of its rows and columns
    lags: Lags  # correlation by how much later low is than high
    by_hour: list[Group]  # of the day (UTC)
    by_lead: list[Group]
    shown: int  # index in the sample of the pair to plot

    @property
    def lag_hours(self) -> float | None:
        """By how much low is later than high at the best correlation; None if there is only one time."""
        if not self.lags:
            return None
        means = {hours: float(np.nanmean(values)) for hours, values in self.lags.items()}
        return max(means, key=lambda hours: (means[hours], -abs(hours)))

    @property
    def is_displaced(self) -> bool:
        """Whether low matches high better with a displacement of a quarter of a cell or more."""
        return is_displaced(self.shifts)

    @property
    def is_lagged(self) -> bool:
        """Whether low correlates better with high at its best lag than at none, by more than three standard errors."""
        if not self.lag_hours:
            return False
        gain = self.lags[self.lag_hours] - self.lags[0.0]
        gain = gain[np.isfinite(gain)]
        return len(gain) >= MIN_LAGGED and bool(gain.mean() > 3 * gain.std(ddof=1) / np.sqrt(len(gain)))


def read(store: Store, progress: Progress) -> tuple[Sample, dict[str, Lags]]:
    """A sample of the store's pairs, and for each shared variable the correlation of low and high by lag in time."""
    names = [v.name for v in store.high_variables if v.name in {w.name for w in store.low_variables}]
    high_rows = [[v.name for v in store.high_variables].index(name) for name in names]
    low_rows = [[v.name for v in store.low_variables].index(name) for name in names]
    coarsen = Coarsening(store.grid("high"), store.grid("low"), store.low_index)

    def high(row: int) -> np.ndarray:
        return store.high[row]

    def coarsened(fields: np.ndarray) -> np.ndarray:
        return np.stack([coarsen(fields[v]) for v in high_rows]) if names else np.zeros((0, *store.low_shape))

    size = int(np.prod(store.high.shape[1:]) + np.prod(store.low.shape[1:]))
    rows = spread(len(store.high_index), int(np.clip(BUDGET // size, MIN_PAIRS, MAX_PAIRS)))
    first_member, mean, coarse = (np.zeros((len(rows), len(names), *store.low_shape), np.float32) for _ in range(3))
    missing = np.zeros(store.low.shape[-3:]), np.zeros(store.high.shape[1:], np.float32)
    for k in progress(range(len(rows)), "reading pairs"):
        low, truth = store.low[int(rows[k])], high(int(store.high_index[rows[k]]))
        members = low.reshape(-1, *low.shape[-3:])
        first_member[k], mean[k], coarse[k] = members[0, low_rows], members[:, low_rows].mean(0), coarsened(truth)
        missing[0][...] += (~np.isfinite(members)).mean(0)
        missing[1][...] += ~np.isfinite(truth)
    sample = Sample(
        rows, names, mean, first_member, coarse, store.grid("low").area(), *(m / len(rows) for m in missing)
    )
    frames, steps = _neighbours(store, rows, int(np.clip(BUDGET // size // 13, 3, 40)))
    if not len(frames) or not names:
        return sample, {name: {} for name in names}
    place = {row: k for k, row in enumerate(rows)}
    chosen = np.array([place[row] for row in frames])
    lags: dict[str, Lags] = {name: {} for name in names}
    earlier = np.zeros((len(steps), *coarse[chosen].shape), np.float32)
    for k in progress(range(len(chosen)), "reading neighbours"):
        for i, column in enumerate(steps.values()):
            earlier[i, k] = coarsened(high(int(column[k])))
    for i, hours in enumerate(steps):
        for v, name in enumerate(names):
            by_pair = correlation(departures(mean[chosen, v]), departures(earlier[i, :, v]), sample.area)
            if np.isfinite(by_pair).any():
                lags[name][hours] = by_pair
    return sample, lags


def spread(total: int, count: int) -> np.ndarray:
    """(at most `count`) int64: a random row of each of `count` equal parts of `total`.

    The rows are spread evenly without all having the same hour of day or lead time.
    """
    edges = np.linspace(0, total, min(total, count) + 1)
    return np.floor(edges[:-1] + np.random.default_rng(0).random(len(edges) - 1) * np.diff(edges)).astype(np.int64)


def compare(store: Store, sample: Sample, lags: dict[str, Lags]) -> dict[str, Match]:
    """Statistics of each variable that low and high share; one without common valid cells is left out."""
    time, lead = store.low_time[sample.rows], store.low_lead_time[sample.rows]
    result = {}
    for v, name in enumerate(sample.names):
        both = np.isfinite(sample.low[:, v]) & np.isfinite(sample.coarse[:, v])
        low, coarse = (np.where(both, f[:, v], np.nan).astype(np.float64) for f in (sample.low, sample.coarse))
        if not np.isfinite(low).any():
            continue
        table = shifts(departures(sample.low[:, v]), departures(sample.coarse[:, v]), sample.area)
        weight = np.where(np.isfinite(low), sample.area, 0.0)
        difference = np.nan_to_num(low - coarse)
        space = _map_correlation(low, coarse, weight)
        biases = (difference * weight).sum((1, 2)) / np.where(weight.any((1, 2)), weight.sum((1, 2)), np.nan)
        total = float((np.nan_to_num(coarse) * weight).sum())
        result[name] = Match(
            spatial_correlation=finite_mean(space),
            temporal_correlation=_temporal_correlation(low, coarse, sample.area),
            bias=float((difference * weight).sum() / weight.sum()),
            rmse=float(np.sqrt((difference**2 * weight).sum() / weight.sum())),
            ratio=float((np.nan_to_num(low) * weight).sum()) / total if total else np.nan,
            spread=float(np.nanstd(coarse)),
            quantiles=_quantiles(np.where(both, sample.first_member[:, v], np.nan), coarse),
            displacement=peak(table)[:2] if np.isfinite(table).all() else None,
            shifts=table,
            lags=lags[name],
            by_hour=_groups(time % 86400, biases),
            by_lead=_groups(lead, biases),
            shown=_illustrative(coarse, space),
        )
    return result


def _temporal_correlation(low: np.ndarray, coarse: np.ndarray, area: np.ndarray) -> float | None:
    """The correlation of departures from each cell's mean, over everything; None if there are few fields."""
    return (
        None
        if len(low) < MIN_SAMPLES
        else finite_mean(correlation(departures(low), departures(coarse), area, (0, 1, 2)))
    )


def _map_correlation(low: np.ndarray, coarse: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The correlation within each field, (n)."""
    total = np.maximum(weight.sum((1, 2), keepdims=True), 1e-30)
    a, b = (f - (np.nan_to_num(f) * weight).sum((1, 2), keepdims=True) / total for f in (low, coarse))
    return correlation(a, b, weight)


def _quantiles(first_member: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """(2, level): of the first member and of coarsened high where both are valid, without weights."""
    both = np.isfinite(first_member) & np.isfinite(coarse)
    stride = -(-int(both.sum()) // MAX_VALUES)
    return np.stack([np.quantile(f[both][::stride].astype(np.float64), LEVELS) for f in (first_member, coarse)])


def _groups(seconds: np.ndarray, biases: np.ndarray) -> list[Group]:
    """The samples at each hour; empty if there is only one hour."""
    groups = []
    for value in np.unique(seconds):
        chosen = biases[(seconds == value) & np.isfinite(biases)]
        if len(chosen):
            error = float(chosen.std(ddof=1) / np.sqrt(len(chosen))) if len(chosen) > 1 else np.nan
            groups.append(Group(float(value) / 3600, float(chosen.mean()), error, len(chosen)))
    return groups if len(groups) > 1 else []


def _illustrative(coarse: np.ndarray, space: np.ndarray) -> int:
    """The case with the median correlation over the map, among the half of the sample with the most variance."""
    variance = np.array([np.nanvar(f) if np.isfinite(f).any() else -1.0 for f in coarse])
    candidates = np.argsort(-variance, kind="stable")[: -(-len(variance) // 2)]
    ordered = candidates[np.argsort(np.nan_to_num(space[candidates], nan=-1.0), kind="stable")]
    return int(ordered[len(ordered) // 2])


def _neighbours(store: Store, rows: np.ndarray, most: int) -> tuple[np.ndarray, dict[float, np.ndarray]]:
    """Samples with all their neighbours in time, and {lag in hours: the high row of each that much earlier}."""
    times = np.unique(store.time)
    if len(times) < 2:
        return rows[:0], {}
    step = int(np.median(np.diff(times)))
    runs = store.group["high/init_time"][...] if store.has("high/init_time") else np.zeros(len(store.time), np.int64)
    table = {(int(run), int(time)): row for row, (run, time) in enumerate(zip(runs, store.time, strict=True))}
    for reach in REACHES:
        lags = np.arange(-reach, reach + 1) * step
        complete = {}
        for row in rows:
            high = store.high_index[row]
            at = [table.get((int(runs[high]), int(store.time[high] - lag))) for lag in lags]
            if None not in at:
                complete[int(row)] = at
        if len(complete) >= min(10, len(rows)):
            chosen = np.array(list(complete))[spread(len(complete), most)]
            columns = np.array([complete[int(row)] for row in chosen]).T
            return chosen, dict(zip((lags / 3600).tolist(), columns, strict=True))
    return rows[:0], {}
