"""A grid on the earth: its projection, positions, areas, coarsening, and its position on another grid."""

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from dsr.data import projection
from dsr.data.curvilinear import lines, precision
from dsr.data.interpolate import Index
from dsr.errors import UserError

EDGE = 1e-3  # of a cell: rounding to float32 or three decimals changes coordinates by less
CHECKED = 100  # rows and columns whose positions are checked
TILE = 2**19  # points projected at once
KM_PER_DEGREE = 111.195  # of a great circle on a sphere of radius 6371 km
ROTATED = "rotated_latitude_longitude"


class Grid:
    """A rectangle of points along one `y` and one `x`: latitudes and longitudes, or the coordinates of a projection.

    `y` (rows) and `x` (columns) are float64, each increasing or decreasing; longitudes are unwrapped. `mapping` holds
    the CF grid-mapping attributes of a projection, with coordinates in metres (in degrees for a rotated pole). None:
    latitudes and longitudes in degrees. Empty: a bare plane in metres, without a location on the earth. Raises
    UserError if a coordinate is not strictly monotonic, or has fewer than two points.
    """

    def __init__(self, y: np.ndarray, x: np.ndarray, mapping: projection.Mapping | None = None):
        self.mapping = None if mapping is None else projection.plain(mapping)
        self.y, self.x = np.array(y, np.float64), np.array(x, np.float64)
        if self.mapping and self.mapping.get("grid_mapping_name") == "latitude_longitude":
            self.x += self.mapping.get("longitude_of_prime_meridian", 0.0)
            self.mapping = None
        if self.mapping is None:
            self.x = np.unwrap(self.x, period=360)
        for name, values in (("y", self.y), ("x", self.x)):
            steps = np.diff(values)
            if len(values) < 2 or not (np.all(steps > 0) or np.all(steps < 0)):
                raise UserError(
                    f"the grid's {name} coordinate must increase or decrease throughout and have at least two points"
                )
        if self.angular and np.abs(self.y).max() > 90 + EDGE:
            raise UserError(f"the grid's latitudes run from {self.y[0]:g} to {self.y[-1]:g}, beyond 90")

    def __reduce__(self) -> Any:
        return Grid, (self.y, self.x, self.mapping)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return len(self.y), len(self.x)

    @property
    def bare(self) -> bool:
        """Whether it is a plane without a location on the earth."""
        return self.mapping == {}

    @property
    def projected(self) -> bool:
        """Whether it has a map projection, a rotated pole included."""
        return bool(self.mapping)

    @property
    def angular(self) -> bool:
        """Whether its coordinates are latitude and longitude, of the earth or of a rotated pole."""
        return self.mapping is None or self.mapping.get("grid_mapping_name") == ROTATED

    @property
    def north_up(self) -> bool:
        """Whether rows run from south to north."""
        return bool(self.y[-1] > self.y[0])

    @property
    def spacing(self) -> tuple[float, float]:
        """(dy, dx): the mean steps of the coordinates, negative if they decrease."""
        dy, dx = (float((values[-1] - values[0]) / (len(values) - 1)) for values in (self.y, self.x))
        return dy, dx

    @property
    def spacing_km(self) -> tuple[float, float]:
        """(dy, dx) of a cell; of angular coordinates, at the mean latitude of the domain."""
        dy, dx = (float(np.abs(np.diff(values)).mean()) for values in (self.y, self.x))
        if self.angular:
            return dy * KM_PER_DEGREE, dx * KM_PER_DEGREE * float(np.cos(np.deg2rad(self.y.mean())))
        return dy * 1e-3, dx * 1e-3

    @property
    def period(self) -> int | None:
        """The number of columns once around the earth, beyond which they repeat; None if there are fewer."""
        columns = round(360 / abs(self.spacing[1]))
        whole = abs(columns - 360 / abs(self.spacing[1])) < 0.01
        return columns if self.angular and whole and columns <= len(self.x) else None

    @property
    def periodic(self) -> bool:
        """Whether its columns go around the earth, so that the first follows the last."""
        return self.period == len(self.x)

    @property
    def latitude(self) -> np.ndarray:
        """(y, x) float64, degrees north."""
        return self._positions[0]

    @property
    def longitude(self) -> np.ndarray:
        """(y, x) float64, degrees east."""
        return self._positions[1]

    @cached_property
    def _positions(self) -> tuple[np.ndarray, np.ndarray]:
        if self.bare:
            raise UserError("a bare plane has no latitude and longitude")
        if self.mapping is None:
            return np.broadcast_to(self.y[:, None], self.shape), np.broadcast_to(self.x, self.shape)
        latitude, longitude = np.empty(self.shape), np.empty(self.shape)
        for rows in _tiles(self.shape):
            latitude[rows], longitude[rows] = self._positions_of(rows)
        return latitude, longitude

    def _positions_of(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Latitude and longitude of some rows; not cached, since large grids are processed tile by tile."""
        if self.mapping is None or "_positions" in self.__dict__:
            return self.latitude[rows], self.longitude[rows]
        positions = projection.degrees(self.mapping, *np.meshgrid(self.y[rows], self.x, indexing="ij"))
        if not all(np.isfinite(values).all() for values in positions):
            raise UserError(f"points of the grid are not on the earth in its projection ({self._name}): crop them")
        return positions

    def area(self) -> np.ndarray:
        """(y, x) float64: the relative area of each cell on the earth (for a bare plane, on the plane), with mean 1."""
        y, x = edges(self.y), edges(self.x)
        if self.angular:
            y = np.sin(np.deg2rad(np.clip(y, -90, 90)))
        cells = np.abs(np.diff(y))[:, None] * np.abs(np.diff(x))
        if self.mapping and not self.angular:
            for rows in _tiles(self.shape):
                cells[rows] /= projection.areal_scale(self.mapping, *self._positions_of(rows))
        return cells / cells.mean()

    def crop(self, rows: slice, columns: slice) -> "Grid":
        """The part in these rows and columns."""
        return Grid(self.y[rows], self.x[columns], self.mapping)

    def coarsened(self, factor: int) -> "Grid":
        """The grid of blocks of `factor` x `factor` cells; left-over rows and columns at the end are cropped.

        Raises UserError if there are fewer than two blocks along an axis.
        """
        rows, columns = (size // factor for size in self.shape)
        if min(rows, columns) < 2:
            size = f"{self.shape[0]} x {self.shape[1]}"
            raise UserError(f"a grid of {size} points is too small to be coarsened by {factor}")
        y = self.y[: rows * factor].reshape(rows, factor).mean(1)
        x = self.x[: columns * factor].reshape(columns, factor).mean(1)
        return Grid(y, x, self.mapping)

    def same(self, other: "Grid") -> bool:
        """Whether it has the same points, within a small fraction of a cell."""
        if self is other:
            return True
        if self.shape != other.shape or not self._same_coordinates(other):
            return False
        pairs = zip((self.y, self.x), (other.y, other.x), self.spacing, strict=True)
        return all(np.allclose(a, b, rtol=0, atol=EDGE * abs(step)) for a, b, step in pairs)

    def index_on(self, low: "Grid") -> Index:
        """Two (y, x) float64: the fractional row and column on the grid `low` of every point, from positions alone.

        This handles cell- and node-registered grids, increasing or decreasing coordinates, different projections and
        longitude conventions. Values below 0 or beyond the last row are outside the low points (`covers`). Apart from
        the index itself, about 100 MB are needed, however large the grids.
        """
        if self._same_coordinates(low):
            rows, columns = np.meshgrid(*low._along(self.y, self.x), indexing="ij", copy=False)
            return Index(rows, columns, low.period)
        if self.bare or low.bare:
            raise UserError("a bare plane without latitude and longitude cannot be located on a grid of the earth")
        rows, columns = np.empty(self.shape), np.empty(self.shape)
        for tile in _tiles(self.shape):
            rows[tile], columns[tile] = low.index_of(*self._positions_of(tile))
        return Index(rows, columns, low.period)

    def index_of(self, latitude: np.ndarray, longitude: np.ndarray) -> Index:
        """Fractional rows and columns of positions in degrees; two float64 arrays of the same shape."""
        y, x = np.asarray(latitude, np.float64), np.asarray(longitude, np.float64)
        if self.mapping is not None:
            y, x = projection.coordinates(self.mapping, y, x)
        return self._along(y, x)

    def _along(self, y: np.ndarray, x: np.ndarray) -> Index:
        """Fractional rows of `y` and columns of `x`, in the grid's coordinates up to multiples of 360 degrees."""
        if self.angular:
            west = self.x.min() - 0.5 * abs(self.spacing[1]) - 1e-6
            x = west + (x - west) % 360
        return Index(_position(y, self.y), _position(x, self.x), self.period)

    def check_position(self, latitude: np.ndarray, longitude: np.ndarray) -> str:
        """Check its positions against the (y, x) latitudes and longitudes, in degrees, that a file gives for them.

        "" if they agree to the precision of the file's values (float32, rounded decimals), otherwise a note for the
        user. Raises UserError if they differ by more than a tenth of a cell. Missing values are ignored; in a large
        grid, about a hundred rows and columns are checked.
        """
        if np.shape(latitude) != self.shape or np.shape(longitude) != self.shape:
            raise UserError(f"latitude has shape {np.shape(latitude)}, but the grid {self.shape}")
        offset, row, column = self._largest_offset(latitude, longitude)
        given = np.asarray(latitude), np.asarray(longitude)
        if offset <= EDGE + 2 * precision(*given) * KM_PER_DEGREE / min(self.spacing_km):
            return ""
        ours = self.y[row], self.x[column]
        if self.mapping is not None:
            ours = projection.degrees(self.mapping, *ours)
        difference = (
            f"its latitude and longitude are up to {offset:.2g} cells off its grid ({self._name or 'y and x'}): at row "
            f"{row}, column {column} they are {_place(*(values[row, column] for values in given))}, but by the grid "
            f"{_place(*ours)}"
        )
        if offset <= 0.1:
            return difference
        raise UserError(f"{difference}; give the right `crs` in a recipe{self._suggestion(latitude, longitude)}")

    def _largest_offset(self, latitude: np.ndarray, longitude: np.ndarray) -> tuple[float, int, int]:
        """The largest distance in cells of its points from these positions, and the row and column where it occurs."""
        subset = [np.unique(np.linspace(0, size - 1, CHECKED).astype(int)) for size in self.shape]
        given = [np.asarray(values)[np.ix_(*subset)] for values in (latitude, longitude)]
        rows, columns = self.index_of(*given)
        off_row, off_column = np.abs(rows - subset[0][:, None]), np.abs(columns - subset[1])
        if self.angular:
            turn = 360 / abs(self.spacing[1])
            off_column = np.minimum(off_column % turn, -off_column % turn)
        offset = np.where(np.isfinite(given[0] + given[1]), np.maximum(off_row, off_column), 0.0)
        i, j = np.unravel_index(offset.argmax(), offset.shape)
        return float(offset[i, j]), int(subset[0][i]), int(subset[1][j])

    def _suggestion(self, latitude: np.ndarray, longitude: np.ndarray) -> str:
        """Text on a grid mapping that gives its coordinates the positions in a file, if one can be found."""
        try:
            mapping = lines(latitude, longitude)[2]
            fits = Grid(self.y, self.x, mapping)._largest_offset(latitude, longitude)[0] < 0.1
        except UserError:
            fits = False
        return f"; this one matches: {json.dumps(mapping)}" if fits else ""

    def covers(self, index: Index) -> np.ndarray:
        """(Y, X) bool: which positions (`index_on`) lie inside its cells, at most half a cell beyond its points.

        If its outermost row is the last one before a pole, everything between that row and the pole is inside.
        """
        first, last = -0.5 - EDGE, np.array(self.shape) - 0.5 + EDGE
        rows, columns = index
        inside = (columns >= first) & (columns <= last[1])
        if not self._reaches_pole(self.y[0], self.y[1]):
            inside &= rows >= first
        if not self._reaches_pole(self.y[-1], self.y[-2]):
            inside &= rows <= last[0]
        return inside

    def _reaches_pole(self, row: float, neighbour: float) -> bool:
        return self.angular and abs(row) > abs(neighbour) and 90 - abs(row) < abs(row - neighbour)

    def extent(self) -> str:
        """The extent as text, such as "50.25 N .. 58 N, 10 W .. 1.75 E"."""
        if self.bare:
            y, x = (f"{k} {v.min() / 1000:.6g} .. {v.max() / 1000:.6g} km" for k, v in (("y", self.y), ("x", self.x)))
            return f"{y}, {x}"
        latitude, longitude = self.latitude, self.longitude
        south, west = _place(latitude.min(), longitude.min()).split(", ")
        north, east = _place(latitude.max(), longitude.max()).split(", ")
        return f"{south} .. {north}, {west} .. {east}"

    def describe(self) -> str:
        """One line of text: size, spacing, projection, extent."""
        (rows, columns), (dy, dx) = self.shape, map(abs, self.spacing)
        scale, unit = (1, "degrees") if self.angular else (1000, "km")
        size = f"{rows} x {columns} points, {dy / scale:.4g} x {dx / scale:.4g} {unit}"
        if self.bare:
            return f"{size} (a bare plane)"
        name = f" ({self._name.replace('_', ' ')})" if self.mapping else ""
        return f"{size}{name}, {self.extent()}"

    @classmethod
    def from_2d(cls, latitude: np.ndarray, longitude: np.ndarray, mapping: projection.Mapping | None = None) -> "Grid":
        """The grid whose points have these (y, x) latitudes and longitudes, on `mapping` or a recovered projection.

        Raises UserError if there is none (`curvilinear.lines`).
        """
        return cls(*lines(latitude, longitude, mapping))

    @classmethod
    def from_dataset(cls, dataset: Any) -> "Grid":
        """The grid of an xarray Dataset with y and x, and crs if it is projected, as `to_dataset` returns it."""
        y, x = dataset["y"], dataset["x"]
        if "crs" in dataset.variables:
            grid = cls(y.values, x.values, dict(dataset["crs"].attrs))
        elif "latitude" in dataset.variables or str(y.attrs.get("units", "")).startswith("degree"):
            return cls(y.values, x.values)
        else:
            scale = 1000.0 if y.attrs.get("units") == "km" else 1.0
            return cls(y.values * scale, x.values * scale, {})
        if "latitude" in dataset.variables:
            grid._positions = dataset["latitude"].values, dataset["longitude"].values  # as in training, to the bit
        return grid

    def to_dataset(self) -> Any:
        """An xarray Dataset of its CF coordinates: y, x, latitude and longitude (1-D or 2-D), and crs."""
        import xarray as xr

        north = {"standard_name": "latitude", "units": "degrees_north"}
        east = {"standard_name": "longitude", "units": "degrees_east"}
        if self.mapping is None:
            coordinates: dict[str, Any] = {
                "y": ("y", self.y, north | {"axis": "Y"}),
                "x": ("x", self.x, east | {"axis": "X"}),
                "latitude": ("y", self.y, north),
                "longitude": ("x", self.x, east),
            }
            return xr.Dataset(coords=coordinates)
        units = {"units": "degrees" if self.angular else "m"}
        names = ("grid_latitude", "grid_longitude") if self.angular else (f"projection_{k}_coordinate" for k in "yx")
        north_name, east_name = names
        coordinates = {
            "y": ("y", self.y, {"standard_name": north_name, **units, "axis": "Y"}),
            "x": ("x", self.x, {"standard_name": east_name, **units, "axis": "X"}),
        }
        if self.mapping:
            coordinates |= {
                "latitude": (("y", "x"), self.latitude, north),
                "longitude": (("y", "x"), self.longitude, east),
                "crs": ((), np.int32(0), self.mapping),
            }
        return xr.Dataset(coords=coordinates)

    @property
    def _name(self) -> str:
        return str((self.mapping or {}).get("grid_mapping_name", ""))

    def _same_coordinates(self, other: "Grid") -> bool:
        """Whether both have the same coordinate system."""
        if self.mapping is None or other.mapping is None:
            return self.mapping is other.mapping
        return projection.same_projection(self.mapping, other.mapping)


def block_mean(field: np.ndarray, cells: np.ndarray, factor: int) -> np.ndarray:
    """(..., y, x) -> (..., y // factor, x // factor) float32: the mean over blocks, weighted by the areas in `cells`.

    Missing values are excluded from the mean of a block; a block without any value is missing.
    """
    rows, columns = (size // factor for size in cells.shape)

    def blocks(values: np.ndarray) -> np.ndarray:
        cut = values[..., : rows * factor, : columns * factor]
        return cut.reshape(*values.shape[:-2], rows, factor, columns, factor).sum((-3, -1))

    known = np.isfinite(field)
    weight = blocks(np.where(known, cells, 0.0))
    total = blocks(np.where(known, field, 0.0) * cells)
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1), np.nan).astype(np.float32)


def _place(latitude: float, longitude: float) -> str:
    """A position as text, such as "50.25 N, 10 W"."""
    east = (longitude + 180) % 360 - 180
    return f"{abs(latitude):.6g} {'S' if latitude < 0 else 'N'}, {abs(east):.6g} {'W' if east < 0 else 'E'}"


def _tiles(shape: tuple[int, int]) -> Iterator[slice]:
    """Blocks of rows."""
    step = max(1, TILE // shape[1])
    yield from (slice(start, start + step) for start in range(0, shape[0], step))


def edges(centres: np.ndarray) -> np.ndarray:
    """(n) coordinates -> (n + 1) edges of the cells around them."""
    middle = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def _position(values: np.ndarray, coordinate: np.ndarray) -> np.ndarray:
    """The fractional index of `values` along a monotonic `coordinate`, extrapolated linearly beyond its ends."""
    index = np.arange(len(coordinate), dtype=np.float64)
    if coordinate[0] > coordinate[-1]:
        return len(coordinate) - 1 - _position(values, coordinate[::-1])
    inside = np.interp(values, coordinate, index)
    before = (values - coordinate[0]) / (coordinate[1] - coordinate[0])
    after = index[-1] + (values - coordinate[-1]) / (coordinate[-1] - coordinate[-2])
    return np.where(values < coordinate[0], before, np.where(values > coordinate[-1], after, inside))
