"""Where the values of a GRIB message lie: its grid from its keys, each value placed as eccodes places it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsr.data import projection
from dsr.data.grid import Grid
from dsr.errors import UserError

TOLERANCE = 0.01  # of a cell: how far a point may lie from its row and its column
REMAP = {  # how to bring grids without rows and columns onto one that has them
    "reduced_gg": "cdo -f grb2 setgridtype,regular IN OUT",
    "sh": "cdo -f grb2 sp2gpl IN OUT",
    "unstructured_grid": "cdo -f grb2 remapcon,GRID -setgrid,GRID_OF_THE_MODEL.nc IN OUT",
}
SCANNING = "scans in a way that eccodes and the GRIB manual read differently; placed as eccodes does: check a coastline"
SPHERE = (
    "says (edition 1) that the earth's radius is 6367.47 km, but NCEP's models take 6371.2 km: "
    "far from the first point it may lie off by some tenths of a cell"
)


@dataclass(frozen=True)
class Layout:
    """How the values of a message, in their order, fill rows and columns. Columns come to run from west to east."""

    shape: tuple[int, int]  # rows, columns
    by_column: bool = False  # one column follows on the other
    alternating: str = ""  # "rows" or "columns": every second one runs backwards
    westward: bool = False

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """(n) -> (y, x)."""
        field = values.reshape(self.shape[::-1]).T if self.by_column else values.reshape(self.shape)
        if self.alternating:
            field = field.copy()
            lines = field if self.alternating == "rows" else field.T
            lines[1::2] = lines[1::2, ::-1]
        return field[:, ::-1] if self.westward else field


def grid_of(message: Any) -> tuple[Grid, Layout, tuple[str, ...]]:
    """The grid of a whole message (an eccodes handle), the layout of its values, and notes for people.

    Raises UserError for a grid without rows and columns, with the line that remaps it, and where points fit no rows.
    """
    from eccodes import codes_get

    kind = codes_get(message, "gridType")
    if kind not in _MAPPINGS:
        remap = REMAP.get(kind, "cdo -f grb2 remapcon,GRID IN OUT")
        raise UserError(f"lies on a grid without rows and columns (gridType {kind}); remap it: {remap}")
    shape = codes_get(message, "Nj"), codes_get(message, "Ni")
    mapping = _mapping(message, kind)
    if mapping is not None and _beyond_eccodes(message, kind):
        return _from_keys(message, kind, shape, mapping)
    y, x = _points(message, mapping)
    layout = _layout(y, x, shape, _angular(mapping))
    if mapping is None:
        rows, columns = layout(y)[:, 0], layout(x)[0]
    else:
        rows, columns = layout(y).mean(1), layout(x).mean(0)
        columns = _even(np.unwrap(columns, period=360) if _angular(mapping) else columns)
        rows = rows if kind == "rotated_gg" else _even(rows)
    return Grid(rows, columns, mapping), layout, _notes(message, mapping, layout, y, x)


def _beyond_eccodes(message: Any, kind: str) -> bool:
    """Whether eccodes cannot tell where the points of such a grid lie."""
    return kind in ("albers", "transverse_mercator") or (kind == "polar_stereographic" and _oblate(message))


def _points(message: Any, mapping: projection.Mapping | None) -> tuple[np.ndarray, np.ndarray]:
    """y and x (n each) of every value, in the order of the values."""
    import eccodes

    if _angular(mapping):
        latitude, longitude = (eccodes.codes_get_array(message, key) for key in ("latitudes", "longitudes"))
    else:
        # eccodes brings the values of projected grids into one order: it must tell where each of them comes to lie.
        count = eccodes.codes_get(message, "Ni") * eccodes.codes_get(message, "Nj")
        probe = eccodes.codes_clone(message)
        eccodes.codes_set(probe, "bitmapPresent", 0)
        eccodes.codes_set(probe, "packingType", "grid_simple")
        eccodes.codes_set(probe, "bitsPerValue", 32)
        eccodes.codes_set_values(probe, np.arange(count, dtype=np.float64))
        points = eccodes.codes_get_array(probe, "latLonValues").reshape(-1, 3)
        eccodes.codes_release(probe)
        latitude, longitude = points[np.argsort(points[:, 2]), :2].T
    return (latitude, longitude) if mapping is None else projection.coordinates(mapping, latitude, longitude)


def _layout(y: np.ndarray, x: np.ndarray, shape: tuple[int, int], angular: bool) -> Layout:
    """The one order in which all points of a row have one y, and all points of a column one x."""
    if min(shape) < 2:
        raise UserError(f"lies on {shape[0]} x {shape[1]} points, which is no grid of rows and columns")
    for by_column, alternating in ((False, ""), (True, ""), (False, "rows"), (True, "columns"), (True, "rows")):
        layout = Layout(shape, by_column, alternating)
        rows, columns = layout(y), layout(x)
        line = np.unwrap(columns[0], period=360) if angular else columns[0]
        dy, dx = (abs(ends[-1] - ends[0]) / (len(ends) - 1) for ends in (rows[:, 0], line))
        if np.ptp(rows, axis=1).max() < TOLERANCE * dy and np.ptp(columns, axis=0).max() < TOLERANCE * dx:
            return Layout(shape, by_column, alternating, westward=bool(line[-1] < line[0]))
    raise UserError("has points that lie in no rows and columns of its projection, by more than a hundredth of a cell")


def _even(line: np.ndarray) -> np.ndarray:
    """The evenly spaced coordinate that values along a line stand for."""
    even = np.linspace(round(line[0], 6), round(line[-1], 6), len(line))
    if np.abs(line - even).max() > TOLERANCE * abs(even[1] - even[0]):
        raise UserError("has rows or columns that are not evenly spaced, by more than a hundredth of a cell")
    return even


def _notes(
    message: Any, mapping: projection.Mapping | None, layout: Layout, y: np.ndarray, x: np.ndarray
) -> tuple[str, ...]:
    """What a human must judge about the place of values whose coordinates, in their order, are `y` and `x`."""
    from eccodes import codes_get

    first_y, first_x = _first_point(message, mapping)
    away = np.hypot(y[0] - first_y, (x[0] - first_x + 180) % 360 - 180 if _angular(mapping) else x[0] - first_x)
    as_told = away < 0.5 * np.hypot(y[1] - y[0], x[1] - x[0])
    as_told &= layout.alternating == _alternating(message)
    ncep = codes_get(message, "centre") == "kwbc" and codes_get(message, "edition") == 1
    sphere = ncep and not _angular(mapping) and not _oblate(message)
    return (() if as_told else (SCANNING,)) + ((SPHERE,) if sphere else ())


def _from_keys(
    message: Any, kind: str, shape: tuple[int, int], mapping: projection.Mapping
) -> tuple[Grid, Layout, tuple[str, ...]]:
    """As `grid_of`, by the GRIB manual: from the first point, the spacing and the scanning mode."""
    from eccodes import codes_get

    if kind == "transverse_mercator":
        first_y, first_x, dy, dx = (0.01 * codes_get(message, key, float) for key in ("Y1", "X1", "Dj", "Di"))
    else:
        first_y, first_x = _first_point(message, mapping)
        dy, dx = (codes_get(message, key, float) for key in ("DyInMetres", "DxInMetres"))
    west, north = (bool(codes_get(message, key)) for key in ("iScansNegatively", "jScansPositively"))
    y = first_y + (dy if north else -dy) * np.arange(shape[0])
    x = first_x + (-dx if west else dx) * np.arange(shape[1])
    layout = Layout(shape, bool(codes_get(message, "jPointsAreConsecutive")), _alternating(message), westward=west)
    return Grid(y, x[::-1] if west else x, mapping), layout, ()


def _alternating(message: Any) -> str:
    """Which lines run to and fro by the GRIB manual, as Layout has them."""
    from eccodes import codes_get

    if not codes_get(message, "alternativeRowScanning"):
        return ""
    return "columns" if codes_get(message, "jPointsAreConsecutive") else "rows"


def _first_point(message: Any, mapping: projection.Mapping | None) -> tuple[float, float]:
    """y and x of the first value, as the keys say."""
    from eccodes import codes_get

    place = [codes_get(message, f"{key}OfFirstGridPointInDegrees", float) for key in ("latitude", "longitude")]
    if _angular(mapping):
        return place[0], place[1]
    y, x = projection.coordinates(mapping or {}, *map(np.atleast_1d, place))
    return float(y[0]), float(x[0])


def _angular(mapping: projection.Mapping | None) -> bool:
    return mapping is None or mapping["grid_mapping_name"] == "rotated_latitude_longitude"


def _oblate(message: Any) -> bool:
    from eccodes import codes_get

    return bool(codes_get(message, "earthIsOblate"))


def _mapping(message: Any, kind: str) -> projection.Mapping | None:
    """CF grid-mapping attributes of a message's projection; None for latitudes and longitudes."""
    from eccodes import codes_get

    def get(key: str) -> float:
        return float(codes_get(message, key, float))

    mapping = _MAPPINGS[kind](get)
    if not mapping:
        return None
    shape = codes_get(message, "shapeOfTheEarth") if codes_get(message, "edition") == 2 else 0
    if shape > 9:
        raise UserError(f"says of the earth's shape only {shape}, of which neither a radius nor axes are known")
    if _oblate(message):
        axes = {"semi_major_axis": "earthMajorAxisInMetres", "semi_minor_axis": "earthMinorAxisInMetres"}
        return mapping | {name: get(key) for name, key in axes.items()}
    return mapping | {"earth_radius": get("radius")}


Get = Callable[[str], float]


def _rotated(get: Get) -> projection.Mapping:
    return {
        "grid_mapping_name": "rotated_latitude_longitude",
        "grid_north_pole_latitude": -get("latitudeOfSouthernPoleInDegrees"),
        "grid_north_pole_longitude": get("longitudeOfSouthernPoleInDegrees") % 360 - 180,
        "north_pole_grid_longitude": 0.0,
    }


def _conic(name: str, get: Get) -> projection.Mapping:
    parallels = sorted({get("Latin1InDegrees"), get("Latin2InDegrees")})
    return {
        "grid_mapping_name": name,
        "standard_parallel": parallels if len(parallels) > 1 else parallels[0],
        "longitude_of_central_meridian": get("LoVInDegrees"),
        "latitude_of_projection_origin": get("LaDInDegrees"),
    }


def _polar(get: Get) -> projection.Mapping:
    pole = -1.0 if int(get("projectionCentreFlag")) & 128 else 1.0
    return {
        "grid_mapping_name": "polar_stereographic",
        "straight_vertical_longitude_from_pole": get("orientationOfTheGridInDegrees"),
        "latitude_of_projection_origin": 90.0 * pole,
        "standard_parallel": pole * abs(get("LaDInDegrees")),
    }


def _mercator(get: Get) -> projection.Mapping:
    west, east = (get(f"longitudeOf{point}GridPointInDegrees") for point in ("First", "Last"))
    return {
        "grid_mapping_name": "mercator",
        "standard_parallel": get("LaDInDegrees"),
        "longitude_of_projection_origin": west + (east - west) % 360 / 2,
    }


def _equal_area(get: Get) -> projection.Mapping:
    return {
        "grid_mapping_name": "lambert_azimuthal_equal_area",
        "latitude_of_projection_origin": get("standardParallelInDegrees"),
        "longitude_of_projection_origin": get("centralLongitudeInDegrees"),
    }


def _transverse_mercator(get: Get) -> projection.Mapping:
    return {
        "grid_mapping_name": "transverse_mercator",
        "latitude_of_projection_origin": get("latitudeOfReferencePointInDegrees"),
        "longitude_of_central_meridian": get("longitudeOfReferencePointInDegrees"),
        "scale_factor_at_central_meridian": get("m"),
        "false_easting": get("XRInMetres"),
        "false_northing": get("YRInMetres"),
    }


_MAPPINGS: dict[str, Callable[[Get], projection.Mapping]] = {
    "regular_ll": lambda get: {},
    "regular_gg": lambda get: {},
    "rotated_ll": _rotated,
    "rotated_gg": _rotated,
    "lambert": lambda get: _conic("lambert_conformal_conic", get),
    "lambert_lam": lambda get: _conic("lambert_conformal_conic", get),
    "albers": lambda get: _conic("albers_conical_equal_area", get),
    "polar_stereographic": _polar,
    "mercator": _mercator,
    "lambert_azimuthal_equal_area": _equal_area,
    "transverse_mercator": _transverse_mercator,
}
