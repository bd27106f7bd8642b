"""The plane on which maps of a store are drawn, with coastlines and a graticule, for grids of any projection."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dsr.data import projection
from dsr.data.grid import Grid, edges

FARTHEST = 70.0  # degrees of arc from the centre of a domain: beyond this, an equal-area map distorts too much
CELLS = 300  # drawn along each side, at most: finer fields are subsampled


class Plane:
    """An equal-area map in kilometres about the centre of `grid`; in degrees if the grid covers much of the earth.

    A bare plane is drawn unchanged, in kilometres.
    """

    def __init__(self, grid: Grid):
        self.bare, self.mapping = grid.bare, None
        if self.bare:
            return
        y, x = (values[:: max(1, len(values) // 50)] for values in (grid.y, grid.x))
        grid = Grid(y, x, grid.mapping)  # coarse: used only for the centre and the radius
        points = _vectors(grid.latitude, grid.longitude)
        centre = points.mean((1, 2))
        self.centre = centre / max(np.linalg.norm(centre), 1e-9)
        arc = np.rad2deg(np.arccos(np.clip(np.tensordot(self.centre, points, 1), -1, 1)))
        latitude = float(np.rad2deg(np.arcsin(np.clip(self.centre[2], -1, 1))))
        self.longitude = float(np.rad2deg(np.arctan2(self.centre[1], self.centre[0])))
        if np.linalg.norm(centre) > 1e-3 and arc.max() < FARTHEST:
            self.mapping = {
                "grid_mapping_name": "lambert_azimuthal_equal_area",
                "latitude_of_projection_origin": latitude,
                "longitude_of_projection_origin": self.longitude,
                "earth_radius": 6371000.0,
            }
        else:
            self.longitude = float(0.5 * (grid.longitude.min() + grid.longitude.max()))

    @property
    def in_degrees(self) -> bool:
        """Whether it is drawn in degrees, around the whole earth."""
        return not self.bare and self.mapping is None

    def place(self, latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x and y of points on the earth; NaN far on the other side."""
        latitude, longitude = np.broadcast_arrays(latitude, longitude)
        if self.mapping is None:
            return np.array(longitude, float), np.array(latitude, float)
        y, x = projection.coordinates(self.mapping, latitude, longitude)
        near = np.tensordot(self.centre, _vectors(latitude, longitude), 1) > -0.2
        return np.where(near, x / 1000, np.nan), np.where(near, y / 1000, np.nan)

    def corners(self, grid: Grid, rows: slice = slice(None), columns: slice = slice(None)) -> Any:
        """x and y of the corners of cells in a part of a grid, both (rows + 1, columns + 1)."""
        y, x = _edges(grid.y, rows), _edges(grid.x, columns)
        if grid.bare:
            return np.meshgrid(x / 1000, y / 1000)
        if grid.angular:
            y = np.clip(y, -90, 90)
        cut = Grid(y, x, grid.mapping)
        return self.place(cut.latitude, cut.longitude)

    def outline(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """x and y of the border of a grid's cells."""
        step = [max(1, size // 200) for size in grid.shape]
        x, y = self.corners(grid, *(slice(None, None, s) for s in step))
        return tuple(np.concatenate([f[0], f[1:, -1], f[-1, -2::-1], f[-2::-1, 0]]) for f in (x, y))  # type: ignore[return-value]

    def view(self, *outlines: tuple[np.ndarray, np.ndarray]) -> tuple[float, float, float, float]:
        """West, east, south and north limits that contain the outlines, with a margin."""
        x, y = (np.concatenate(f) for f in zip(*outlines, strict=True))
        west, east, south, north = np.nanmin(x), np.nanmax(x), np.nanmin(y), np.nanmax(y)
        margin = 0.03 * max(east - west, north - south)
        if self.in_degrees and east - west > 330:
            west, east = self.longitude - 180, self.longitude + 180
            return west, east, max(south - margin, -90), min(north + margin, 90)
        return west - margin, east + margin, south - margin, north + margin

    def field(self, ax: Any, grid: Grid, values: np.ndarray, **options: Any) -> Any:
        """Draw (y, x) values on a grid; fine grids are subsampled to at most CELLS each way."""
        cuts = []
        for size in values.shape:
            step = -(-size // CELLS)
            cuts.append((slice(None, None, step), slice(step // 2, size // step * step, step)))
        x, y = self.corners(grid, cuts[0][0], cuts[1][0])
        shown = values[cuts[0][1], cuts[1][1]]
        x, y = x[: shown.shape[0] + 1, : shown.shape[1] + 1], y[: shown.shape[0] + 1, : shown.shape[1] + 1]
        known = np.isfinite(x) & np.isfinite(y)
        complete = known[1:, 1:] & known[1:, :-1] & known[:-1, 1:] & known[:-1, :-1]
        shown = np.ma.masked_invalid(np.where(complete, shown, np.nan))
        for offset in self._offsets:
            drawn = ax.pcolormesh(np.nan_to_num(x) + offset, np.nan_to_num(y), shown, rasterized=True, **options)
        return drawn

    def line(self, ax: Any, x: np.ndarray, y: np.ndarray, **options: Any) -> None:
        """Draw a line through points."""
        for offset in self._offsets:
            ax.plot(x + offset, y, **options)
            options.pop("label", None)

    def dress(self, ax: Any, view: tuple[float, float, float, float], colour: str = "#333333") -> None:
        """Add coastlines, a graticule labelled at the edges, and the limits of the map."""
        west, east, south, north = view
        ax.set_aspect("equal")
        ax.tick_params(labelsize=8, length=2)
        if self.bare:
            ax.set(xlim=(west, east), ylim=(south, north), xlabel="km", ylabel="km")
            return
        width = (east - west) * (111 if self.in_degrees else 1)
        latitude, longitude = coastlines("50m" if width < 6000 else "110m")
        self.line(ax, *self.place(latitude, longitude), color=colour, linewidth=0.7, zorder=3)
        x, y = np.linspace(west, east, 401), np.linspace(south, north, 401)
        parallels, meridians = (_levels(f) for f in self.back(*np.meshgrid(x[::20], y[::20])))
        thin: dict[str, Any] = {"color": "#888888", "linewidth": 0.4, "alpha": 0.7, "zorder": 2}
        for level in parallels:
            self.line(ax, *self.place(np.full(721, level), self.longitude + np.linspace(-180, 180, 721)), **thin)
        for level in meridians:
            self.line(ax, *self.place(np.linspace(-89.9, 89.9, 721), np.full(721, level)), **thin)
        for axis, along, values, levels, names in (
            (ax.xaxis, x, self.back(x, np.full_like(x, south))[1], meridians, "EW"),
            (ax.yaxis, y, self.back(np.full_like(y, west), y)[0], parallels, "NS"),
        ):
            ticks: list[tuple[float, str]] = []
            min_distance = (0.2 if names == "EW" else 0.08) * max(east - west, north - south)
            crossings = sorted((at, level) for level in levels for at in _crossings(along, values, level))
            for at, level in crossings:
                if not ticks or at - ticks[-1][0] >= min_distance:
                    ticks.append((at, _degrees(level, names)))
            axis.set_ticks([at for at, _ in ticks], [text for _, text in ticks])
        ax.set(xlim=(west, east), ylim=(south, north))

    def back(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Latitude and longitude of points on the plane; longitudes within 180 degrees of the centre."""
        if self.mapping is None:
            return y, x
        latitude, longitude = projection.degrees(self.mapping, y * 1000, x * 1000)
        return latitude, self.longitude + (longitude - self.longitude + 180) % 360 - 180

    @cached_property
    def _offsets(self) -> tuple[float, ...]:
        return (-360.0, 0.0, 360.0) if self.in_degrees else (0.0,)


def coastlines(scale: str) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude of the coasts at "110m" or "50m" (1:50 million), with NaN between lines."""
    with np.load(Path(__file__).with_name("coastlines.npz")) as file:
        steps, points = file[f"steps_{scale}"].astype(np.int64), file[f"points_{scale}"]
    lines = np.split(steps, np.cumsum(points)[:-1], axis=1)
    gap = np.full((2, 1), np.nan)
    longitude, latitude = np.concatenate([f for line in lines for f in (line.cumsum(1) / 100, gap)], axis=1)
    return latitude, longitude


def _vectors(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """(3, ...): points of the unit sphere."""
    y, x = np.deg2rad(latitude), np.deg2rad(longitude)
    return np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)])


def _edges(centres: np.ndarray, part: slice) -> np.ndarray:
    """The edges of cells around these coordinates, or a part of them that includes the last."""
    all_edges = edges(centres)
    subset = all_edges[part]
    return subset if subset[-1] == all_edges[-1] else np.append(subset, all_edges[-1])


def _levels(values: np.ndarray) -> np.ndarray:
    """About five round values in degrees within the range."""
    from matplotlib.ticker import MaxNLocator

    low, high = np.nanmin(values), np.nanmax(values)
    steps = [1, 1.5, 2, 3, 4.5, 6, 9, 10] if high - low > 60 else [1, 2, 5, 10]
    return np.array([level for level in MaxNLocator(6, steps=steps).tick_values(low, high) if low <= level <= high])


def _crossings(along: np.ndarray, values: np.ndarray, level: float) -> list[float]:
    """Where values along an edge first cross a level, ignoring jumps."""
    above = values - level
    passes = np.flatnonzero((above[1:] * above[:-1] <= 0) & (np.abs(np.diff(above)) < 90) & (np.diff(above) != 0))
    return [float(along[k] + (along[k + 1] - along[k]) * above[k] / (above[k] - above[k + 1])) for k in passes[:1]]


def _degrees(value: float, names: str) -> str:
    value = (value + 180) % 360 - 180 if names == "EW" else value
    side = "" if abs(value) in (0, 180) and (names == "EW" or not value) else names[int(value < 0)]
    return f"{abs(value):.6g}°{side}"
