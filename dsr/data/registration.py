"""Whether low and high lie on each other as their coordinates say: middles or corners of cells, and half a cell."""

import itertools

import numpy as np

from dsr.data.grid import Grid
from dsr.data.interpolate import Index

REACH = 2  # low cells each way that are tried
NOTED = 0.3  # low cells: less is what weather, and its interpolation, do by themselves
TELLS = 0.3  # a correlation below which fields say nothing of their place


def registration(index: tuple[np.ndarray, np.ndarray]) -> str:
    """How high points fall on low ones: "node" where some coincide along both axes, else "cell"."""
    return "node" if all(np.abs(i - np.rint(i)).min() < 1e-3 for i in index) else "cell"


def corner_note(name: str, coordinate: np.ndarray, bounds: np.ndarray) -> str:
    """A line for people where a coordinate (n) does not lie in the middle of its bounds (n, 2), else ""."""
    lower, upper = np.asarray(bounds, np.float64).T
    share = float(np.median((np.asarray(coordinate, np.float64) - lower) / (upper - lower)))
    if abs(share - 0.5) < 0.1:
        return ""
    return f"{name} lies {share:.2g} of the way through its bounds, not in the middle: its points are corners of cells"


def onto_low(high: np.ndarray, index: Index, low_shape: tuple[int, int]) -> np.ndarray:
    """(n, Y, X) on the high grid -> (n, y, x) float64 on the low one: means weighted by nearness, up to one low cell.

    A low point that has not the usual number of high points about it, or a missing one among them, is NaN.
    """
    rows, columns = (np.ravel(i) for i in index)
    first, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    sums, weights = np.zeros((len(high), *low_shape)), np.zeros(low_shape)
    for dy, dx in itertools.product((0, 1), repeat=2):
        row, column = first + dy, left + dx
        weight = (1 - np.abs(rows - row)) * (1 - np.abs(columns - column))
        column = column if getattr(index, "period", None) is None else column % index.period
        inside = (row >= 0) & (row < low_shape[0]) & (column >= 0) & (column < low_shape[1])
        cell = (row * low_shape[1] + column)[inside]
        weights += np.bincount(cell, weight[inside], weights.size).reshape(low_shape)
        for field, total in zip(high.reshape(len(high), -1), sums, strict=True):
            total += np.bincount(cell, weight[inside] * field[inside], weights.size).reshape(low_shape)
    whole = weights > 0.9 * np.median(weights[weights > 0])
    return np.where(whole, sums / np.where(whole, weights, 1), np.nan)


def lag(low: np.ndarray, coarsened: np.ndarray) -> tuple[float, float, float]:
    """(rows, columns) in low cells by which low must be moved to fit high best; the correlation at whole ones.

    low and coarsened: (n, y, x), the low fields and the high ones of the same times on the low grid (`onto_low`). Their
    departures from each point's mean are correlated at whole lags of up to two cells, over all fields together; a
    parabola through the best and its neighbours gives the fraction. (0, 0, 0) where there is too little to tell.
    """
    moving, fixed = (_departures(np.asarray(fields, np.float64)) for fields in (low, coarsened))
    steps = range(-REACH, REACH + 1)
    found = np.array([[_correlation(moving, fixed, dy, dx) for dx in steps] for dy in steps])
    i, j = (int(k) for k in np.unravel_index(found.argmax(), found.shape))
    if found[i, j] < TELLS:
        return 0.0, 0.0, 0.0
    return i - REACH + _top(found[:, j], i), j - REACH + _top(found[i], j), float(found[i, j])


def half_cell_note(low: np.ndarray, coarsened: np.ndarray, grid: Grid) -> str:
    """A line for people where low fits high better when moved by a good part of a cell, else "".

    low and coarsened as for `lag`, of a few dozen times spread over the archive; `grid`: the low one. Both halves of
    the times must say the same.
    """
    halves = [lag(low[part::2], coarsened[part::2]) for part in (0, 1)] if len(low) > 3 else [lag(low, coarsened)]
    if any(correlation == 0 for *_, correlation in halves):
        return ""
    lags = np.array([half[:2] for half in halves])
    rows, columns = lags.mean(0)
    if max(abs(rows), abs(columns)) < NOTED or np.ptp(lags, axis=0).max() > NOTED:
        return ""
    north, east = rows * np.sign(grid.spacing[0]), columns * np.sign(grid.spacing[1])
    words = [
        f"{abs(cells):.1f} cells {name}"
        for cells, name in ((north, "north" if north > 0 else "south"), (east, "east" if east > 0 else "west"))
        if abs(cells) >= 0.2
    ]
    return f"low fits high best when moved by {' and '.join(words)}: is one of them registered at the corners of cells?"


def _departures(fields: np.ndarray) -> np.ndarray:
    """From each point's mean over the fields, where there are several, and from each field's mean."""
    with np.errstate(invalid="ignore"):
        fields = fields - fields.mean(0) if len(fields) > 1 else fields
        there = np.isfinite(fields)
        means = np.where(there, fields, 0).sum((1, 2)) / np.maximum(there.sum((1, 2)), 1)
    return fields - means[:, None, None]


def _correlation(moving: np.ndarray, fixed: np.ndarray, dy: int, dx: int) -> float:
    """Of `fixed` with `moving` moved by whole cells, over the points that both have."""
    height, width = moving.shape[1:]
    part = [slice(max(0, d), size + min(0, d)) for d, size in ((dy, height), (dx, width))]
    from_part = [slice(max(0, -d), size + min(0, -d)) for d, size in ((dy, height), (dx, width))]
    a, b = moving[:, *from_part], fixed[:, *part]
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / scale) if scale > 0 else 0.0


def _top(values: np.ndarray, best: int) -> float:
    """Where the parabola through a maximum and its neighbours has its top, in steps from the maximum."""
    if not 0 < best < len(values) - 1:
        return 0.0
    before, here, after = values[best - 1 : best + 2]
    bend = before - 2 * here + after
    return float(0.5 * (before - after) / bend) if bend < 0 else 0.0
