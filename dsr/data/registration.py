"""Whether low and high are registered alike: the displacement, in low cells, at which they correlate best."""

import numpy as np

REACH = 2  # low cells: how far the table of shifts extends to each side; 1 in small domains
MIN_SAMPLES = 5  # with fewer samples, departures from their mean say nothing
TOLERANCE = 0.3  # of a low cell: both halves of the pairs agree within this if a displacement is no accident
FAR = 0.25  # of a low cell: above the noise of fields that match, below a shift of half a cell


def corner_note(name: str, coordinate: np.ndarray, bounds: np.ndarray) -> str:
    """A note if a coordinate (n) does not lie in the middle of its bounds (n, 2), else ""."""
    lower, upper = np.asarray(bounds, np.float64).T
    share = float(np.median((np.asarray(coordinate, np.float64) - lower) / (upper - lower)))
    if abs(share - 0.5) < 0.1:
        return ""
    return f"has {name} {share:.2g} of the way through its bounds, not in the middle: its points are corners of cells"


def departures(fields: np.ndarray) -> np.ndarray:
    """(n, y, x) minus each cell's mean, which removes climate and terrain; few fields minus the mean of each field."""
    axes = 0 if len(fields) >= MIN_SAMPLES else (1, 2)
    known = np.isfinite(fields)
    total = np.where(known, fields, 0).sum(axes, keepdims=True, dtype=np.float64)
    mean = total / np.maximum(known.sum(axes, keepdims=True), 1)
    rest = fields - mean
    return np.where(np.abs(rest) <= 1e-6 * np.abs(mean), 0, rest)  # rounding errors of a constant are no departure


def correlation(a: np.ndarray, b: np.ndarray, area: np.ndarray, axes: tuple[int, ...] = (1, 2)) -> np.ndarray:
    """The correlation of departures over `axes`, by default in each field; NaN where either is constant."""
    known = np.isfinite(a) & np.isfinite(b)
    a, b = (np.where(known, f, 0).astype(np.float64) for f in (a, b))
    size = np.sqrt((a * a * area).sum(axes) * (b * b * area).sum(axes))
    return np.where(size > 0, (a * b * area).sum(axes) / np.where(size > 0, size, 1), np.nan)


def finite_mean(values: np.ndarray) -> float | None:
    """The mean of the finite values; None if there are none."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def shifts(low: np.ndarray, coarse: np.ndarray, area: np.ndarray) -> np.ndarray:
    """The correlation of low, shifted by rows and columns, with high; always over the same inner cells of high."""
    reach = REACH if min(low.shape[1:]) >= 5 * REACH else 1
    table = np.full((2 * reach + 1, 2 * reach + 1), np.nan)
    if min(low.shape[1:]) < 2 * reach + 2:
        return table
    inner = tuple(slice(reach, size - reach) for size in low.shape[1:])
    for place in np.ndindex(table.shape):
        y, x = (slice(k, size - 2 * reach + k) for k, size in zip(place, low.shape[1:], strict=True))
        value = finite_mean(correlation(low[:, y, x], coarse[:, *inner], area[inner]))
        table[place] = np.nan if value is None else value
    return table


def peak(table: np.ndarray) -> tuple[float, float, float]:
    """The maximum of a table of shifts by parabolic interpolation: rows and columns from its middle, and the value."""
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


def is_displaced(table: np.ndarray) -> bool:
    """Whether a displacement above a quarter of a cell explains 5 % or more of what is left unexplained without it."""
    if not np.isfinite(table).all() or max(map(abs, peak(table)[:2])) <= FAR:
        return False
    here = table[tuple(size // 2 for size in table.shape)]
    return bool(peak(table)[2] - here > 0.05 * (1 - here))


def note(name: str, low: np.ndarray, coarse: np.ndarray, area: np.ndarray) -> str:
    """A note if pairs of a variable, (n, y, x) on the low grid, are displaced against each other; "" if they match."""
    low, coarse = departures(low), departures(coarse)
    tables = [shifts(low[part], coarse[part], area) for part in (slice(None), slice(0, None, 2), slice(1, None, 2))]
    if not all(map(is_displaced, tables)):
        return ""
    peaks = np.array([peak(table)[:2] for table in tables])
    if np.ptp(peaks, axis=0).max() > TOLERANCE:
        return ""
    rows, columns = peaks[0]
    return (
        f"{name}: low matches high best when it is moved by {-rows:.1f} of its rows and {-columns:.1f} of its columns: "
        "is one of them registered at cell corners, the other at cell centres?"
    )
