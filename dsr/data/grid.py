"""Where grids lie: making them from coordinates, areas of cells, coarsening, and one grid's place on another."""

import json
from functools import cache
from typing import Any

import numpy as np

from dsr.errors import UserError

EDGE = 1e-3  # of a cell: coordinates in float32, or rounded to three decimals, differ by less


def make(y: np.ndarray, x: np.ndarray, mapping: dict[str, Any] | None = None) -> Any:
    """A grid as an xarray Dataset of coordinates only, as `store.Layout` describes it.

    `y` and `x` are latitudes and longitudes in degrees or, with the CF grid-mapping attributes `mapping`, projection
    coordinates. Rows may run north or south. Raises UserError where a coordinate is not monotonic.
    """
    import xarray as xr

    y, x = np.asarray(y, np.float64), np.asarray(x, np.float64)
    if mapping is None:
        x = np.unwrap(x, period=360)
    for name, values in (("y", y), ("x", x)):
        steps = np.diff(values)
        if len(values) < 2 or not (np.all(steps > 0) or np.all(steps < 0)):
            raise UserError(f"the grid's {name} coordinate must rise or fall throughout and have at least two points")
    if mapping is None:
        north = {"standard_name": "latitude", "units": "degrees_north"}
        east = {"standard_name": "longitude", "units": "degrees_east"}
        coordinates: dict[str, Any] = {
            "y": ("y", y, north | {"axis": "Y"}),
            "x": ("x", x, east | {"axis": "X"}),
            "latitude": ("y", y, north),
            "longitude": ("x", x, east),
        }
    else:
        rotated = mapping.get("grid_mapping_name") == "rotated_latitude_longitude"
        names = (
            ("grid_latitude", "grid_longitude") if rotated else ("projection_y_coordinate", "projection_x_coordinate")
        )
        units = "degrees" if rotated else "m"
        longitude, latitude = _transformer(mapping, None).transform(*np.meshgrid(x, y))
        coordinates = {
            "y": ("y", y, {"standard_name": names[0], "units": units, "axis": "Y"}),
            "x": ("x", x, {"standard_name": names[1], "units": units, "axis": "X"}),
            "latitude": (("y", "x"), latitude, {"standard_name": "latitude", "units": "degrees_north"}),
            "longitude": (("y", "x"), longitude, {"standard_name": "longitude", "units": "degrees_east"}),
            "crs": ((), np.int32(0), mapping),
        }
    return xr.Dataset(coords=coordinates)


def shape(grid: Any) -> tuple[int, int]:
    """(rows, columns)."""
    return grid.sizes["y"], grid.sizes["x"]


def crs(grid: Any) -> dict[str, Any] | None:
    """The CF grid-mapping attributes; None on a grid of latitudes and longitudes."""
    return dict(grid["crs"].attrs) if "crs" in grid.variables else None


def same(a: Any, b: Any) -> bool:
    """Whether two grids have the same points, to a small part of a cell."""
    return a is b or (
        shape(a) == shape(b)
        and _same_crs(a, b)
        and all(np.allclose(a[k], b[k], rtol=0, atol=EDGE * abs(spacing(a[k].values))) for k in ("y", "x"))
    )


def spacing(coordinate: np.ndarray) -> float:
    """The mean step of a coordinate, negative where it falls."""
    return float((coordinate[-1] - coordinate[0]) / (len(coordinate) - 1))


def area(grid: Any) -> np.ndarray:
    """(y, x) float64: the relative area of each cell on the earth, with mean 1 (of a bare plane: as it is)."""
    mapping = crs(grid)
    y, x = _edges(grid["y"].values), _edges(grid["x"].values)
    if mapping is None and str(grid["y"].attrs.get("units", "")).startswith("degree"):
        y = np.sin(np.deg2rad(np.clip(y, -90, 90)))
    cells = np.abs(np.diff(y))[:, None] * np.abs(np.diff(x))
    if mapping is not None:
        from pyproj import Proj

        projection = Proj(_projection(mapping))
        cells = cells / projection.get_factors(grid["longitude"].values, grid["latitude"].values).areal_scale
    return cells / cells.mean()


def coarsen(grid: Any, factor: int) -> Any:
    """The grid of blocks of `factor` x `factor` cells; rows and columns left over at the end are cropped.

    Raises UserError where not even two blocks fit.
    """
    rows, columns = (size // factor for size in shape(grid))
    if min(rows, columns) < 2:
        raise UserError(f"a grid of {shape(grid)[0]} x {shape(grid)[1]} points is too small to be coarsened x{factor}")
    y = grid["y"].values[: rows * factor].reshape(rows, factor).mean(1)
    x = grid["x"].values[: columns * factor].reshape(columns, factor).mean(1)
    return make(y, x, crs(grid))


def block_mean(field: np.ndarray, cells: np.ndarray, factor: int) -> np.ndarray:
    """(..., y, x) -> (..., y // factor, x // factor) float32: the mean over blocks, weighted by the `cells`' areas.

    Missing values are left out of their block's mean; a block without any value is missing.
    """
    rows, columns = (size // factor for size in cells.shape)

    def blocks(values: np.ndarray) -> np.ndarray:
        cut = values[..., : rows * factor, : columns * factor]
        return cut.reshape(*values.shape[:-2], rows, factor, columns, factor).sum((-3, -1))

    good = np.isfinite(field)
    weight = blocks(np.where(good, cells, 0.0))
    total = blocks(np.where(good, field, 0.0) * cells)
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1), np.nan).astype(np.float32)


def low_index(high: Any, low: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two (y, x) float64: the fractional low row and column of every high point, from the coordinates alone.

    Cell- and node-registered grids, rising or falling coordinates, other projections and other longitude conventions
    all come out of this. Values below 0 or beyond the last row lie outside the low points (see `covered`).
    """
    if _same_crs(high, low):
        y, x = high["y"].values, high["x"].values
    else:
        longitude, latitude = _positions(high)
        x, y = longitude, latitude
        if crs(low) is not None:
            x, y = _transformer(None, crs(low)).transform(longitude, latitude)
    if crs(low) is None:
        west = low["x"].values.min() - 0.5 * abs(spacing(low["x"].values)) - 1e-6
        x = west + (x - west) % 360
    rows, columns = _position(y, low["y"].values), _position(x, low["x"].values)
    if rows.ndim == 1:
        rows, columns = np.meshgrid(rows, columns, indexing="ij")
    return rows, columns


def covered(index: tuple[np.ndarray, np.ndarray], low_shape: tuple[int, int]) -> np.ndarray:
    """(y, x) bool: the high points that lie inside a low cell (at most half a cell beyond the outermost points)."""
    inside = [(i >= -0.5 - EDGE) & (i <= size - 0.5 + EDGE) for i, size in zip(index, low_shape, strict=True)]
    return inside[0] & inside[1]


def extent(grid: Any) -> str:
    """Such as "50.25..58 N, 10 W..1.75 E": for people."""
    latitude, longitude = grid["latitude"].values, grid["longitude"].values
    south, north = (f"{abs(v):.6g}{' S' if v < 0 else ' N'}" for v in (latitude.min(), latitude.max()))
    west, east = (
        f"{abs(v):.6g}{' W' if v < 0 else ' E'}"
        for v in ((value + 180) % 360 - 180 for value in (longitude.min(), longitude.max()))
    )
    return f"{south} .. {north}, {west} .. {east}"


def describe(grid: Any) -> str:
    """One line for people: size, spacing, projection, extent."""
    rows, columns = shape(grid)
    step_y, step_x = (abs(spacing(grid[k].values)) for k in ("y", "x"))
    mapping = crs(grid)
    if "latitude" not in grid:
        return (
            f"{rows} x {columns} points, {step_y:.4g} x {step_x:.4g} {grid['y'].attrs.get('units', '')} (a bare plane)"
        )
    if mapping is None:
        return f"{rows} x {columns} points, {step_y:.4g} x {step_x:.4g} degrees, {extent(grid)}"
    unit, scale = ("degrees", 1) if grid["y"].attrs["units"] == "degrees" else ("km", 1000)
    name = mapping["grid_mapping_name"].replace("_", " ")
    return f"{rows} x {columns} points, {step_y / scale:.4g} x {step_x / scale:.4g} {unit} ({name}), {extent(grid)}"


def _edges(centres: np.ndarray) -> np.ndarray:
    middle = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def _position(values: np.ndarray, coordinate: np.ndarray) -> np.ndarray:
    """The fractional index of `values` along a monotonic `coordinate`, going on in a straight line beyond its ends."""
    index = np.arange(len(coordinate), dtype=np.float64)
    if coordinate[0] > coordinate[-1]:
        return len(coordinate) - 1 - _position(values, coordinate[::-1])
    inside = np.interp(values, coordinate, index)
    before = (values - coordinate[0]) / (coordinate[1] - coordinate[0])
    after = index[-1] + (values - coordinate[-1]) / (coordinate[-1] - coordinate[-2])
    return np.where(values < coordinate[0], before, np.where(values > coordinate[-1], after, inside))


def _positions(grid: Any) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude of every point, both (y, x)."""
    longitude, latitude = grid["longitude"].values, grid["latitude"].values
    return (longitude, latitude) if latitude.ndim == 2 else tuple(np.meshgrid(longitude, latitude))  # type: ignore[return-value]


def _same_crs(a: Any, b: Any) -> bool:
    first, second = crs(a), crs(b)
    if first is None or second is None:
        return first is second
    return first == second or _projection(first) == _projection(second)


def _transformer(source: dict[str, Any] | None, target: dict[str, Any] | None) -> Any:
    """Between a projection (CF grid-mapping attributes) and None, which stands for longitude and latitude."""
    from pyproj import Transformer

    known = _projection(source if source is not None else target)  # type: ignore[arg-type]
    start, end = (known, known.geodetic_crs) if source is not None else (known.geodetic_crs, known)
    return Transformer.from_crs(start, end, always_xy=True)


def _projection(mapping: dict[str, Any]) -> Any:
    """The pyproj CRS of CF grid-mapping attributes."""
    return _made(json.dumps(mapping, sort_keys=True))


@cache
def _made(mapping: str) -> Any:
    from pyproj import CRS

    return CRS.from_cf(json.loads(mapping))  # slow: it looks the datum up
