"""Two-dimensional latitudes and longitudes: their precision, and the row and column coordinates behind them."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from dsr.data import projection
from dsr.errors import UserError

CLOSE = 0.01  # of a cell: how far points may deviate from the rows and columns of a projection
SPHERES = (6371229.0, 6370000.0)  # m: ECMWF and most models; WRF
SUBSET = 24  # rows and columns used in a fit

Coordinates = tuple[np.ndarray, np.ndarray, projection.Mapping | None]  # y, x and their grid mapping


def precision(*values: np.ndarray) -> float:
    """The largest error of the values, in their unit, from storage as float32 or rounding to some decimals."""
    return max(_precision(np.asarray(array)) for array in values)


def _precision(values: np.ndarray) -> float:
    exact = np.asarray(values, np.float64)
    exact = exact[np.isfinite(exact)]
    largest = np.abs(exact).max(initial=1.0)
    single = np.array_equal(exact, exact.astype(np.float32))
    noise = float(np.spacing(np.float32(largest)) if single else np.spacing(largest))
    for decimals in range(7):
        scaled = exact * 10**decimals
        if np.abs(scaled - np.rint(scaled)).max(initial=0.0) <= 2 * noise * 10**decimals:
            return max(noise, 0.5 * 10**-decimals)
    return noise


def lines(latitude: np.ndarray, longitude: np.ndarray, mapping: projection.Mapping | None = None) -> Coordinates:
    """The rows and columns of a grid whose points have these (y, x) latitudes and longitudes, in degrees.

    If rows are parallels and columns are meridians, their latitudes and longitudes. Otherwise the evenly spaced
    coordinates of the projection `mapping` or, without one, of the best fit among rotated pole, Lambert conformal and
    polar stereographic. Raises UserError if points are missing, or deviate by more than a hundredth of a cell.
    """
    latitude, longitude = np.asarray(latitude, np.float64), np.asarray(longitude, np.float64)
    if latitude.ndim != 2 or latitude.shape != longitude.shape or min(latitude.shape) < 2:
        raise UserError(
            f"latitude has shape {latitude.shape}, longitude {longitude.shape}: both must be (rows, columns)"
        )
    if not (np.isfinite(longitude).all() and (np.abs(latitude) <= 90).all()):
        raise UserError("some latitudes or longitudes are missing; give a file in which every point has a position")
    error = precision(latitude, longitude)
    longitude = np.unwrap(np.unwrap(longitude, period=360, axis=1), period=360, axis=0)
    y, x = np.median(latitude, axis=1), np.median(longitude, axis=0)
    cell = min(np.abs(np.diff(y)).min(), np.abs(np.diff(x)).min())
    deviation = max(np.abs(latitude - y[:, None]).max(), np.abs(longitude - x).max())
    if deviation < CLOSE * cell + 2 * error and deviation < 0.1 * cell:
        return y, x, None
    candidates = [_fitted(latitude, longitude)] if mapping is None else _with_usual_spheres(mapping)
    rows, columns = _subset(latitude.shape)
    subset = latitude[np.ix_(rows, columns)], longitude[np.ix_(rows, columns)]
    best = min(candidates, key=lambda candidate: _even(candidate, *subset, rows, columns)[0])
    deviation, y, x = _even(best, latitude, longitude, *map(np.arange, latitude.shape))
    if deviation < CLOSE + min(0.05, 2 * error / _cell(latitude, longitude)):
        return y, x, best
    if mapping is not None:
        name = mapping.get("grid_mapping_name")
        raise UserError(
            f"its points deviate by up to {deviation:.2g} cells from the rows and columns of {name}; "
            "give the right `crs`"
        )
    raise UserError(
        "latitude and longitude are two-dimensional, but fit no rotated-pole, Lambert or polar stereographic grid; "
        f"give the projection as `crs` in a recipe, or regrid the file: {remap(latitude, longitude)}"
    )


def remap(latitude: np.ndarray, longitude: np.ndarray) -> str:
    """The `cdo` command that remaps points to a regular latitude-longitude grid of about the same spacing."""
    south, north = np.floor(np.min(latitude)), np.ceil(np.max(latitude))
    west = np.floor((np.min(longitude) + 180) % 360 - 180)
    east = west + np.ceil(np.ptp(longitude) + 1)
    area = max(north - south, 1) * max(min(east - west, 360), 1) * max(np.cos(np.radians((south + north) / 2)), 0.1)
    step = float(f"{np.sqrt(area / np.size(latitude)):.1g}")
    box = "" if east - west >= 359 else f"sellonlatbox,{west:g},{east:g},{south:g},{north:g} -"
    return f"cdo {box}remapbil,global_{step:g} IN.nc OUT.nc"


def _cell(latitude: np.ndarray, longitude: np.ndarray) -> float:
    """The smaller median distance, in degrees of a great circle, between neighbours along rows and along columns."""
    steps = []
    for axis in (0, 1):
        across = np.cos(np.radians(latitude)).take(range(latitude.shape[axis] - 1), axis)
        steps.append(np.median(np.hypot(np.diff(latitude, axis=axis), np.diff(longitude, axis=axis) * across)))
    return float(min(steps))


def _even(
    mapping: projection.Mapping, latitude: np.ndarray, longitude: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """The largest deviation, in cells, of the points in `rows` and `columns` from evenly spaced y and x, and these."""
    y, x = projection.coordinates(mapping, latitude, longitude)
    if mapping.get("grid_mapping_name") == "rotated_latitude_longitude":
        x = np.unwrap(np.unwrap(x, period=360, axis=1), period=360, axis=0)
    if not (np.isfinite(y).all() and np.isfinite(x).all()):
        return np.inf, rows, columns
    even_y, dy = _line(rows, np.median(y, axis=1))
    even_x, dx = _line(columns, np.median(x, axis=0))
    deviation = max(np.abs(y - even_y[:, None]).max() / dy, np.abs(x - even_x).max() / dx)
    return float(deviation), even_y, even_x


def _line(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, float]:
    """The straight line through values at `steps`, by least squares, and the size of a step."""
    slope, start = np.polyfit(steps, values, 1)
    return start + slope * steps, max(abs(float(slope)), 1e-12)


def _subset(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Some rows and columns, including the outermost ones."""
    return [np.unique(np.linspace(0, size - 1, SUBSET).astype(int)) for size in shape]


def _with_usual_spheres(mapping: projection.Mapping) -> Iterator[projection.Mapping]:
    """The mapping as it is, and with the usual spheres if it does not name a sphere or ellipsoid."""
    yield mapping
    if not projection.has_figure(mapping):
        yield from ({**mapping, "earth_radius": radius} for radius in SPHERES)


# Recovering a projection: its scale and origin follow from the even coordinates, so that one standard parallel can
# represent any two, and a conformal projection of an ellipsoid is one of a sphere with other latitudes.

Values = tuple[float, ...] | np.ndarray  # of the attributes to be fitted, in degrees
WGS84 = {"semi_major_axis": 6378137.0, "inverse_flattening": 298.257223563}


def _fitted(latitude: np.ndarray, longitude: np.ndarray) -> projection.Mapping:
    """The mapping, of any kind, on a sphere or on WGS 84, that best fits a subset of the points."""
    from scipy.optimize import least_squares

    rows, columns = _subset(latitude.shape)
    lat, lon = (np.radians(values[np.ix_(rows, columns)]) for values in (latitude, longitude))
    fitted = []
    for figure, latitudes in (({"earth_radius": SPHERES[0]}, lat), (WGS84, _conformal(lat))):
        for project, name, keys, fixed, starts in _projections(float(np.median(latitude)), float(np.median(longitude))):

            def deviation(values: Values, project: Any = project, latitudes: np.ndarray = latitudes) -> np.ndarray:
                y, x = project(_normalized(values), latitudes, lon)
                return np.concatenate([_deviation(y, rows).ravel(), _deviation(x.T, columns).ravel()])

            def worst(values: Values, deviation: Any = deviation) -> float:
                return float(np.abs(deviation(values)).max())

            best = min((least_squares(deviation, start).x for start in starts), key=worst)
            rounded = (np.round(best, decimals) for decimals in (1, 2, 3, 4))  # as people write them
            best = next((values for values in rounded if worst(values) < worst(best) + 0.1 * CLOSE), best)
            attributes = dict(zip(keys, map(float, _normalized(best)), strict=True))
            fitted.append((worst(best), {"grid_mapping_name": name, **attributes, **fixed, **figure}))
    return min(fitted, key=lambda fit: fit[0])[1]


def _projections(
    latitude: float, longitude: float
) -> list[tuple[Any, str, tuple[str, ...], dict[str, float], list[Values]]]:
    """(function, name, attributes to fit, fixed attributes, first guesses) of each projection near a place."""
    pole, opposite = float(np.copysign(90, latitude)), longitude + (180 if latitude >= 0 else 0)
    return [
        (
            _rotated,
            "rotated_latitude_longitude",
            ("grid_north_pole_latitude", "grid_north_pole_longitude"),
            {},
            [(90 - abs(latitude) + tilt, opposite) for tilt in (0, 15, -15)],
        ),
        (
            _conic,
            "lambert_conformal_conic",
            ("standard_parallel", "longitude_of_central_meridian"),
            {"latitude_of_projection_origin": 0.0},
            [(float(np.copysign(max(abs(latitude), 10), latitude)), longitude + turn) for turn in (0, 30, -30)],
        ),
        (
            lambda values, *place: _conic((pole, *values), *place),
            "polar_stereographic",
            ("straight_vertical_longitude_from_pole",),
            {"latitude_of_projection_origin": pole, "scale_factor_at_projection_origin": 1.0},
            [(longitude + turn,) for turn in (0, 90, 180, 270)],
        ),
    ]


def _normalized(values: Values) -> np.ndarray:
    """The values within bounds: the last is a longitude, one before it a latitude."""
    *latitude, longitude = values
    return np.array([*np.clip(latitude, -89.9, 89.9), (longitude + 180) % 360 - 180])


def _deviation(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The deviation, in steps, of values (n, m) from a line along n that is the same for all m."""
    slope, start = np.polyfit(steps, values.mean(1), 1)
    return (values - start - slope * steps[:, None]) / (slope or 1e-12)


def _conformal(latitude: np.ndarray) -> np.ndarray:
    """Conformal latitude on WGS 84, in radians (Snyder 1987, 3-1)."""
    e = np.sqrt(1 - (1 - 1 / WGS84["inverse_flattening"]) ** 2)
    sine = e * np.sin(latitude)
    return 2 * np.arctan(np.tan(np.pi / 4 + latitude / 2) * ((1 - sine) / (1 + sine)) ** (e / 2)) - np.pi / 2


def _rotated(pole: Values, latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude, in radians, about a rotated pole."""
    tilt, turn = np.radians(pole[0]), np.radians(pole[1]) + np.pi
    x, y, z = np.cos(latitude) * np.cos(longitude - turn), np.cos(latitude) * np.sin(longitude - turn), np.sin(latitude)
    up = z * np.sin(tilt) - x * np.cos(tilt)
    return np.arcsin(np.clip(up, -1, 1)), np.arctan2(y, x * np.sin(tilt) + z * np.cos(tilt))


def _conic(values: Values, latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The conformal conic of a standard parallel and a central meridian (Snyder 1987, 15-1 to 15-3), unscaled."""
    n = np.sin(np.radians(values[0])) or 1e-9
    rho = np.tan(np.pi / 4 - latitude / 2) ** n
    theta = n * ((longitude - np.radians(values[1]) + np.pi) % (2 * np.pi) - np.pi)
    return -rho * np.cos(theta), rho * np.sin(theta)
