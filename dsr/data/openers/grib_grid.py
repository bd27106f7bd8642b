"""The grid of a GRIB message, from its keys; values are placed as eccodes places them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsr.data import projection
from dsr.data.grid import Grid
from dsr.errors import UserError

TOLERANCE = 0.01  # of a cell: how far a point may deviate from its row and its column
REMAP = {  # how to remap grids without rows and columns to one that has them
    "reduced_gg": "cdo -f grb2 setgridtype,regular IN OUT",
    "sh": "cdo -f grb2 sp2gpl IN OUT",
    "unstructured_grid": "cdo -f grb2 remapcon,GRID -setgrid,GRID_OF_THE_MODEL.nc IN OUT",
}
SCANNING = "has a scanning mode that eccodes and the GRIB manual read differently; eccodes is used: check a coastline"
SPHERE = (
    "says (edition 1) that the earth's radius is 6367.47 km, but NCEP's models use 6371.2 km: "
    "far from the first point, positions may be off by some tenths of a cell"
)


@dataclass(frozen=True)
class Layout:
    """How the values of a message, in their order, fill rows and columns. The result runs from west to east."""

    shape: tuple[int, int]  # rows, columns
    by_column: bool = False  # values run along columns first
    alternating: str = ""  # "rows" or "columns": every second one is reversed
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
    """The grid of a whole message (an eccodes handle), the layout of its values, and notes for the user.

    Raises UserError for a grid without rows and columns, with a command to remap it, and if points do not form rows.
    """
    from eccodes import codes_get

    kind = codes_get(message, "gridType")
    if kind not in _MAPPINGS:
        remap = REMAP.get(kind, "cdo -f grb2 remapcon,GRID IN OUT")
        raise UserError(f"has a grid without rows and columns (gridType {kind}); remap it: {remap}")
    shape = codes_get(message, "Nj"), codes_get(message, "Ni")
    mapping = _mapping(message, kind)
    if mapping is not None and _unsupported_by_eccodes(message, kind):
        return _from_keys(message, kind, shape, mapping)
    y, x = _points(message, mapping)
    layout = _layout(y, x, shape, _angular(mapping))
    if mapping is None:
        rows, columns = layout(y)[:, 0], layout(x)[0]
    else:
        rows, columns = layout(y).mean(1), layout(x).mean(0)
        columns = _evenly_spaced(np.unwrap(columns, period=360) if _angular(mapping) else columns)
        rows = rows if kind == "rotated_gg" else _evenly_spaced(rows)
    return Grid(rows, columns, mapping), layout, _notes(message, mapping, layout, y, x)


def _unsupported_by_eccodes(message: Any, kind: str) -> bool:
    """Whether eccodes cannot compute the positions of points of such a grid."""
    return kind in ("albers", "transverse_mercator") or (kind == "polar_stereographic" and _oblate(message))


def _points(message: Any, mapping: projection.Mapping | None) -> tuple[np.ndarray, np.ndarray]:
    """y and x (n each) of every value, in the order of the values."""
    import eccodes

    if _angular(mapping):
        latitude, longitude = (eccodes.codes_get_array(message, key) for key in ("latitudes", "longitudes"))
    else:
        # eccodes reorders the values of projected grids: a probe shows where each of them ends up.
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
        raise UserError(f"has {shape[0]} x {shape[1]} points, which is not a grid of rows and columns")
    for by_column, alternating in ((False, ""), (True, ""), (False, "rows"), (True, "columns"), (True, "rows")):
        layout = Layout(shape, by_column, alternating)
        rows, columns = layout(y), layout(x)
        line = np.unwrap(columns[0], period=360) if angular else columns[0]
        dy, dx = (abs(ends[-1] - ends[0]) / (len(ends) - 1) for ends in (rows[:, 0], line))
        if np.ptp(rows, axis=1).max() < TOLERANCE * dy and np.ptp(columns, axis=0).max() < TOLERANCE * dx:
            return Layout(shape, by_column, alternating, westward=bool(line[-1] < line[0]))
    raise UserError(
        "has points that deviate from rows and columns of its projection by more than a hundredth of a cell"
    )


def _evenly_spaced(line: np.ndarray) -> np.ndarray:
    """The evenly spaced coordinate that values along a line represent."""
    even = np.linspace(round(line[0], 6), round(line[-1], 6), len(line))
    if np.abs(line - even).max() > TOLERANCE * abs(even[1] - even[0]):
        raise UserError("has rows or columns that are not evenly spaced, by more than a hundredth of a cell")
    return even


def _notes(
    message: Any, mapping: projection.Mapping | None, layout: Layout, y: np.ndarray, x: np.ndarray
) -> tuple[str, ...]:
    """Notes on the positions of values whose coordinates, in their order, are `y` and `x`."""
    from eccodes import codes_get

    first_y, first_x = _first_point(message, mapping)
    distance = np.hypot(y[0] - first_y, (x[0] - first_x + 180) % 360 - 180 if _angular(mapping) else x[0] - first_x)
    as_declared = distance < 0.5 * np.hypot(y[1] - y[0], x[1] - x[0])
    as_declared &= layout.alternating == _alternating(message)
    ncep = codes_get(message, "centre") == "kwbc" and codes_get(message, "edition") == 1
    sphere = ncep and not _angular(mapping) and not _oblate(message)
    return (() if as_declared else (SCANNING,)) + ((SPHERE,) if sphere else ())


def _from_keys(
    message: Any, kind: str, shape: tuple[int, int], mapping: projection.Mapping
) -> tuple[Grid, Layout, tuple[str, ...]]:
    """Like `grid_of`, by the GRIB manual: from the first point, the spacing and the scanning mode."""
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
    """Which lines alternate in direction by the GRIB manual, as in Layout."""
    from eccodes import codes_get

    if not codes_get(message, "alternativeRowScanning"):
        return ""
    return "columns" if codes_get(message, "jPointsAreConsecutive") else "rows"


def _first_point(message: Any, mapping: projection.Mapping | None) -> tuple[float, float]:
    """y and x of the first value, from the keys."""
    from eccodes import codes_get

    position = [codes_get(message, f"{key}OfFirstGridPointInDegrees", float) for key in ("latitude", "longitude")]
    if _angular(mapping):
        return position[0], position[1]
    y, x = projection.coordinates(mapping or {}, *map(np.atleast_1d, position))
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
        raise UserError(f"gives the earth's shape only as code {shape}, whose radius or axes are not known")
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
