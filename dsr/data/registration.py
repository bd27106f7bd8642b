"""Whether low lies where high has it: the shift, in low cells, at which the two are most alike."""

import numpy as np

REACH = 2  # low cells: how far the table of shifts goes to each side, 1 in small domains
FEW = 5  # samples: of fewer, departures from a mean say nothing
AGREE = 0.3  # of a low cell: both halves of the pairs say so within this, where it is no chance
FAR = 0.25  # of a low cell: a half-cell shift is beyond it, the noise of fields that fit is not


def corner_note(name: str, coordinate: np.ndarray, bounds: np.ndarray) -> str:
    """A line for people where a coordinate (n) does not lie in the middle of its bounds (n, 2), else ""."""
    lower, upper = np.asarray(bounds, np.float64).T
    share = float(np.median((np.asarray(coordinate, np.float64) - lower) / (upper - lower)))
    if abs(share - 0.5) < 0.1:
        return ""
    return f"has {name} {share:.2g} of the way through its bounds, not in the middle: its points are corners of cells"


def departures(fields: np.ndarray) -> np.ndarray:
    """(n, y, x) less each cell's mean, so that neither climate nor terrain count; of few fields less their own mean."""
    axes = 0 if len(fields) >= FEW else (1, 2)
    good = np.isfinite(fields)
    total = np.where(good, fields, 0).sum(axes, keepdims=True, dtype=np.float64)
    mean = total / np.maximum(good.sum(axes, keepdims=True), 1)
    rest = fields - mean
    return np.where(np.abs(rest) <= 1e-6 * np.abs(mean), 0, rest)  # what float32 leaves of a constant is no departure


def alike(a: np.ndarray, b: np.ndarray, area: np.ndarray, axes: tuple[int, ...] = (1, 2)) -> np.ndarray:
    """The correlation of departures, in each field or over all `axes`; NaN where either does not vary."""
    good = np.isfinite(a) & np.isfinite(b)
    a, b = (np.where(good, f, 0).astype(np.float64) for f in (a, b))
    size = np.sqrt((a * a * area).sum(axes) * (b * b * area).sum(axes))
    return np.where(size > 0, (a * b * area).sum(axes) / np.where(size > 0, size, 1), np.nan)


def mean_of_known(values: np.ndarray) -> float | None:
    """Of those that are known; None where none is."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def shifts(low: np.ndarray, coarse: np.ndarray, area: np.ndarray) -> np.ndarray:
    """The correlation of low so many rows and columns on with high, each over the same inner cells of high."""
    reach = REACH if min(low.shape[1:]) >= 5 * REACH else 1
    table = np.full((2 * reach + 1, 2 * reach + 1), np.nan)
    if min(low.shape[1:]) < 2 * reach + 2:
        return table
    inner = tuple(slice(reach, size - reach) for size in low.shape[1:])
    for place in np.ndindex(table.shape):
        y, x = (slice(k, size - 2 * reach + k) for k, size in zip(place, low.shape[1:], strict=True))
        value = mean_of_known(alike(low[:, y, x], coarse[:, *inner], area[inner]))
        table[place] = np.nan if value is None else value
    return table


def peak(table: np.ndarray) -> tuple[float, float, float]:
    """Where a table of shifts is highest, in rows and columns from its middle, and how high, by parabolas there."""
    best = np.unravel_index(int(table.argmax()), table.shape)
    place, height = [], float(table[best])
    for axis, k in enumerate(best):
        line, middle = np.moveaxis(table, axis, 0)[:, best[1 - axis]], len(table) // 2
        if 0 < k < len(line) - 1:
            slope, bend = 0.5 * (line[k + 1] - line[k - 1]), line[k + 1] - 2 * line[k] + line[k - 1]
            place.append(float(k - middle - (slope / bend if bend else 0)))
            height -= float(0.5 * slope**2 / bend) if bend else 0.0
        else:
            place.append(float(k - middle))
    return place[0], place[1], height


def lies_elsewhere(table: np.ndarray) -> bool:
    """Whether low a quarter of a cell or more off is the better match, by a twentieth of what is unexplained."""
    if not np.isfinite(table).all() or max(map(abs, peak(table)[:2])) <= FAR:
        return False
    here = table[tuple(size // 2 for size in table.shape)]
    return bool(peak(table)[2] - here > 0.05 * (1 - here))


def note(name: str, low: np.ndarray, coarse: np.ndarray, area: np.ndarray) -> str:
    """What a human must judge of some pairs of a variable, all (n, y, x) on the low grid; "" where they fit."""
    low, coarse = departures(low), departures(coarse)
    tables = [shifts(low[part], coarse[part], area) for part in (slice(None), slice(0, None, 2), slice(1, None, 2))]
    if not all(map(lies_elsewhere, tables)):
        return ""
    places = np.array([peak(table)[:2] for table in tables])
    if np.ptp(places, axis=0).max() > AGREE:
        return ""
    rows, columns = places[0]
    return (
        f"{name}: low fits high best when it is moved by {-rows:.1f} of its rows and {-columns:.1f} of its columns: "
        "is one of the two registered at corners of cells, and the other at centres?"
    )
