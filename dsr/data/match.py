"""How well low and high match: numbers from a bounded sample of a store's pairs, compared on the low grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from dsr.data.coarsening import Coarsening
from dsr.data.registration import FEW, alike, departures, lies_elsewhere, mean_of_known, peak, shifts
from dsr.data.store import Store

BUDGET = 2**26  # values read for the comparison, and as many again for the lag in time: seconds
MOST, FEWEST = 200, 12  # samples
STEPS = (6, 3, 2, 1)  # how far the lag in time is looked for, in steps of the high archive: as far as runs allow
LEVELS = np.array([0.001, 0.01, *np.arange(1, 20) * 0.05, 0.99, 0.999])  # of the quantiles
VALUES = 2_000_000  # values that quantiles are taken of
ENOUGH = 10  # pairs: of fewer, a better match at another time is no finding

Each = Callable[[Iterable[int], str], Iterable[int]]  # goes over rows, and shows how far it is
Lags = dict[float, np.ndarray]  # {hours: (n) the correlation of departures in each of n pairs}


@dataclass
class Sample:
    """Some of a store's pairs on its low grid; fields are float32, NaN where missing."""

    rows: np.ndarray  # (n) int64: which samples
    names: list[str]  # the variables (v) that low and high share
    low: np.ndarray  # (n, v, y, x): the mean of the members
    one: np.ndarray  # (n, v, y, x): the first member
    coarse: np.ndarray  # (n, v, y, x): high, coarsened
    area: np.ndarray  # (y, x) float64: of the low cells
    missing_low: np.ndarray  # (low variable, y, x): the share of the sample that is missing
    missing_high: np.ndarray  # (high variable, Y, X)


@dataclass
class Group:
    """Low minus coarsened high, averaged over the map, of the samples at one hour."""

    hours: float
    bias: float
    error: float  # the standard error of the bias
    samples: int


@dataclass
class Match:
    """What the sample shows of one variable, in its units; cells count by their area."""

    in_space: float | None  # correlation over the map, the mean over samples
    in_time: float | None  # correlation of departures from each cell's mean
    bias: float  # the mean of low minus coarsened high
    rmse: float
    ratio: float  # of totals, low over coarsened high
    spread: float  # the standard deviation of coarsened high
    quantiles: np.ndarray  # (2, level): of low (its first member) and of coarsened high
    lag: (
        tuple[float, float] | None
    )  # how many low rows and columns low lies from where high has it; None: cannot be told
    shifts: np.ndarray  # (2 reach + 1, 2 reach + 1): correlation if low lies so many of its rows and columns on
    lags: Lags  # by how much later low comes than high: how alike they are then
    by_hour: list[Group]  # of the day (UTC)
    by_lead: list[Group]
    shown: int  # the place in the sample of the pair to look at

    @property
    def lag_hours(self) -> float | None:
        """How much later low comes, where that is seen best; None where there is one time only."""
        if not self.lags:
            return None
        means = {hours: float(np.nanmean(values)) for hours, values in self.lags.items()}
        return max(means, key=lambda hours: (means[hours], -abs(hours)))

    @property
    def lies_elsewhere(self) -> bool:
        """Whether low fits high better a quarter of a cell or more off."""
        return lies_elsewhere(self.shifts)

    @property
    def comes_at_another_time(self) -> bool:
        """Whether low at its best lag is more like high than at none, beyond chance: three standard errors."""
        if not self.lag_hours:
            return False
        gain = self.lags[self.lag_hours] - self.lags[0.0]
        gain = gain[np.isfinite(gain)]
        return len(gain) >= ENOUGH and bool(gain.mean() > 3 * gain.std(ddof=1) / np.sqrt(len(gain)))


def read(store: Store, each: Each) -> tuple[Sample, dict[str, Lags]]:
    """A sample of the store's pairs, and for each shared variable how alike low and high are by lag in time."""
    names = [v.name for v in store.high_variables if v.name in {w.name for w in store.low_variables}]
    of_high = [[v.name for v in store.high_variables].index(name) for name in names]
    of_low = [[v.name for v in store.low_variables].index(name) for name in names]
    coarsen = Coarsening(store.grid("high"), store.grid("low"), store.low_index)

    def high(row: int) -> np.ndarray:
        return store.high[row]

    def coarsened(fields: np.ndarray) -> np.ndarray:
        return np.stack([coarsen(fields[v]) for v in of_high]) if names else np.zeros((0, *store.low_shape))

    size = int(np.prod(store.high.shape[1:]) + np.prod(store.low.shape[1:]))
    rows = spread(len(store.high_index), int(np.clip(BUDGET // size, FEWEST, MOST)))
    one, mean, coarse = (np.zeros((len(rows), len(names), *store.low_shape), np.float32) for _ in range(3))
    missing = np.zeros(store.low.shape[-3:]), np.zeros(store.high.shape[1:], np.float32)
    for k in each(range(len(rows)), "reading pairs"):
        low, truth = store.low[int(rows[k])], high(int(store.high_index[rows[k]]))
        members = low.reshape(-1, *low.shape[-3:])
        one[k], mean[k], coarse[k] = members[0, of_low], members[:, of_low].mean(0), coarsened(truth)
        missing[0][...] += (~np.isfinite(members)).mean(0)
        missing[1][...] += ~np.isfinite(truth)
    found = [m / len(rows) for m in missing]
    sample = Sample(rows, names, mean, one, coarse, store.grid("low").area(), *found)
    frames, steps = _neighbours(store, rows, int(np.clip(BUDGET // size // 13, 3, 40)))
    if not len(frames) or not names:
        return sample, {name: {} for name in names}
    place = {row: k for k, row in enumerate(rows)}
    chosen = np.array([place[row] for row in frames])
    lags: dict[str, Lags] = {name: {} for name in names}
    earlier = np.zeros((len(steps), *coarse[chosen].shape), np.float32)
    for k in each(range(len(chosen)), "reading neighbours"):
        for lag, column in enumerate(steps.values()):
            earlier[lag, k] = coarsened(high(int(column[k])))
    for lag, hours in enumerate(steps):
        for v, name in enumerate(names):
            likeness = alike(departures(mean[chosen, v]), departures(earlier[lag, :, v]), sample.area)
            if np.isfinite(likeness).any():
                lags[name][hours] = likeness
    return sample, lags


def spread(total: int, count: int) -> np.ndarray:
    """(at most `count`) int64: one row at random of each of so many equal stretches of `total`.

    So they lie evenly, and yet do not all fall on one hour of the day or one lead.
    """
    edges = np.linspace(0, total, min(total, count) + 1)
    return np.floor(edges[:-1] + np.random.default_rng(0).random(len(edges) - 1) * np.diff(edges)).astype(np.int64)


def compare(store: Store, sample: Sample, lags: dict[str, Lags]) -> dict[str, Match]:
    """What the sample shows of each variable that low and high share; without a place where both are: left out."""
    time, lead = store.low_time[sample.rows], store.low_lead_time[sample.rows]
    found = {}
    for v, name in enumerate(sample.names):
        both = np.isfinite(sample.low[:, v]) & np.isfinite(sample.coarse[:, v])
        low, coarse = (np.where(both, f[:, v], np.nan).astype(np.float64) for f in (sample.low, sample.coarse))
        if not np.isfinite(low).any():
            continue
        table = shifts(departures(sample.low[:, v]), departures(sample.coarse[:, v]), sample.area)
        weight = np.where(np.isfinite(low), sample.area, 0.0)
        difference = np.nan_to_num(low - coarse)
        space = _over_the_map(low, coarse, weight)
        each = (difference * weight).sum((1, 2)) / np.where(weight.any((1, 2)), weight.sum((1, 2)), np.nan)
        total = float((np.nan_to_num(coarse) * weight).sum())
        found[name] = Match(
            in_space=mean_of_known(space),
            in_time=_in_time(low, coarse, sample.area),
            bias=float((difference * weight).sum() / weight.sum()),
            rmse=float(np.sqrt((difference**2 * weight).sum() / weight.sum())),
            ratio=float((np.nan_to_num(low) * weight).sum()) / total if total else np.nan,
            spread=float(np.nanstd(coarse)),
            quantiles=_quantiles(np.where(both, sample.one[:, v], np.nan), coarse),
            lag=peak(table)[:2] if np.isfinite(table).all() else None,
            shifts=table,
            lags=lags[name],
            by_hour=_groups(time % 86400, each),
            by_lead=_groups(lead, each),
            shown=_telling(coarse, space),
        )
    return found


def _in_time(low: np.ndarray, coarse: np.ndarray, area: np.ndarray) -> float | None:
    """The correlation of departures from each cell's mean, over all; None of few fields."""
    return None if len(low) < FEW else mean_of_known(alike(departures(low), departures(coarse), area, (0, 1, 2)))


def _over_the_map(low: np.ndarray, coarse: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The correlation within each field, (n)."""
    total = np.maximum(weight.sum((1, 2), keepdims=True), 1e-30)
    a, b = (f - (np.nan_to_num(f) * weight).sum((1, 2), keepdims=True) / total for f in (low, coarse))
    return alike(a, b, weight)


def _quantiles(one: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """(2, level): of the first member and of coarsened high, where both are, cells counted alike."""
    both = np.isfinite(one) & np.isfinite(coarse)
    stride = -(-int(both.sum()) // VALUES)
    return np.stack([np.quantile(f[both][::stride].astype(np.float64), LEVELS) for f in (one, coarse)])


def _groups(seconds: np.ndarray, each: np.ndarray) -> list[Group]:
    """The samples at each hour; empty where there is one hour only."""
    groups = []
    for value in np.unique(seconds):
        chosen = each[(seconds == value) & np.isfinite(each)]
        if len(chosen):
            error = float(chosen.std(ddof=1) / np.sqrt(len(chosen))) if len(chosen) > 1 else np.nan
            groups.append(Group(float(value) / 3600, float(chosen.mean()), error, len(chosen)))
    return groups if len(groups) > 1 else []


def _telling(coarse: np.ndarray, space: np.ndarray) -> int:
    """Of the half of the sample with the most structure, the case whose correlation over the map is the median."""
    variance = np.array([np.nanvar(f) if np.isfinite(f).any() else -1.0 for f in coarse])
    candidates = np.argsort(-variance, kind="stable")[: -(-len(variance) // 2)]
    ordered = candidates[np.argsort(np.nan_to_num(space[candidates], nan=-1.0), kind="stable")]
    return int(ordered[len(ordered) // 2])


def _neighbours(store: Store, rows: np.ndarray, most: int) -> tuple[np.ndarray, dict[float, np.ndarray]]:
    """Samples that have all their neighbours in time, and {lag in hours: the high row of each so much earlier}."""
    times = np.unique(store.time)
    if len(times) < 2:
        return rows[:0], {}
    step = int(np.median(np.diff(times)))
    runs = store.group["high/init_time"][...] if store.has("high/init_time") else np.zeros(len(store.time), np.int64)
    table = {(int(run), int(time)): row for row, (run, time) in enumerate(zip(runs, store.time, strict=True))}
    for reach in STEPS:
        lags = np.arange(-reach, reach + 1) * step
        found = {}
        for row in rows:
            high = store.high_index[row]
            at = [table.get((int(runs[high]), int(store.time[high] - lag))) for lag in lags]
            if None not in at:
                found[int(row)] = at
        if len(found) >= min(10, len(rows)):
            chosen = np.array(list(found))[spread(len(found), most)]
            columns = np.array([found[int(row)] for row in chosen]).T
            return chosen, dict(zip((lags / 3600).tolist(), columns, strict=True))
    return rows[:0], {}
