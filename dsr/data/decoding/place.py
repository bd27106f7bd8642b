"""The grid of a variable, from its coordinates, its grid mapping, and its latitudes and longitudes."""

import json
from typing import Any

import numpy as np

from dsr.data.grid import ROTATED, Grid
from dsr.data.projection import has_figure, in_metres, mapping_of
from dsr.data.units import conversion
from dsr.errors import UserError

GEOGRAPHIC = "latitude_longitude"
_GRIDS: dict[Any, tuple[Grid, str]] = {}  # one object for all files with the same grid: projecting is slow


def grid(array: Any, y: str, x: str, crs: Any = None) -> tuple[Grid, str]:
    """The grid of a DataArray with dimensions `y` and `x`, and a note for the user (usually "").

    `crs` from a recipe replaces that of the file: CF grid-mapping attributes, a PROJ string or an EPSG code.
    Raises UserError if the positions of its points are unknown, or the file contradicts itself.
    """
    rows, columns = _coordinate(array, y), _coordinate(array, x)
    mapping = _mapping(array) if crs is None else mapping_of(crs)
    two_d = _two_d(array, y, x)
    plain = rows is not None and columns is not None and _is_plain(rows, y, mapping, given=crs is not None)
    key = (
        plain,
        json.dumps(mapping, sort_keys=True, default=str),
        *(c if c is None else (c.values.astype(float).tobytes(), str(c.attrs.get("units"))) for c in (rows, columns)),
        None if two_d is None else tuple(hash(c.tobytes()) for c in two_d),
    )
    if key not in _GRIDS:
        _GRIDS[key] = _build(rows, columns, mapping, two_d, plain, y, x)
    return _GRIDS[key]


def _build(rows: Any, columns: Any, mapping: Any, two_d: Any, plain: bool, y: str, x: str) -> tuple[Grid, str]:
    geographic = _name(mapping) == GEOGRAPHIC
    if plain:
        result = Grid(rows.values, columns.values, mapping if geographic else None)
        return result, "" if two_d is None else result.check_position(*two_d)
    mapping = None if geographic else mapping
    if rows is None or columns is None or mapping is None:
        if two_d is None:
            if rows is None or columns is None:
                raise UserError(
                    f"dimensions {y} and {x} have no coordinates, and there are no latitudes and longitudes"
                )
            raise UserError(
                f"{y} and {x} belong to a projection that the file does not name (CF grid_mapping): "
                'give it as "crs" in a recipe'
            )
        return Grid.from_2d(two_d[0], two_d[1], mapping), ""
    scales = [_scale(c, name) for c, name in ((rows, y), (columns, x))]
    result = Grid(rows.values * scales[0], columns.values * scales[1], in_metres(mapping, scales[0]))
    if two_d is not None:
        return result, result.check_position(*two_d)
    if not result.angular and not all(c.attrs.get("units") for c in (rows, columns)):
        return result, f"its coordinates {y} and {x} have no units: metres are assumed"
    known = result.angular or has_figure(mapping)
    return result, "" if known else "its grid mapping gives no radius of the earth: WGS 84 is assumed"


def _coordinate(array: Any, dim: str) -> Any:
    """The 1-D coordinate along `dim`; None if there is none, or if it only counts points."""
    if dim not in array.coords:
        return None
    coordinate = array[dim]
    known = coordinate.attrs.get("standard_name") or coordinate.attrs.get("units") or _is_degrees(coordinate, dim)
    counts = np.array_equal(coordinate.values, np.arange(len(coordinate))) or np.array_equal(
        coordinate.values, np.arange(1, len(coordinate) + 1)
    )
    return None if counts and not known else coordinate


def _is_degrees(coordinate: Any, name: str) -> bool:
    default = "degrees" if name.lower().startswith(("lat", "lon")) else ""
    return str(coordinate.attrs.get("units", default)).startswith("deg")


def _is_plain(rows: Any, y: str, mapping: Any, given: bool) -> bool:
    """Whether coordinates are latitude and longitude on the earth; `given`: the mapping is a recipe's and is right."""
    standard_name, units = rows.attrs.get("standard_name"), rows.attrs.get("units")
    if not _is_degrees(rows, y):
        return _name(mapping) == GEOGRAPHIC and units is None
    if standard_name == "grid_latitude" or str(rows.name).lower() == "rlat":
        return False
    return _name(mapping) != ROTATED or (standard_name == "latitude" and not given)


def _name(mapping: Any) -> str:
    return str((mapping or {}).get("grid_mapping_name", ""))


def _scale(coordinate: Any, name: str) -> float:
    units = str(coordinate.attrs.get("units", "m"))
    return 1.0 if units.startswith("deg") else conversion(units, "m", f"coordinate {name}")[0]


def _mapping(array: Any) -> dict[str, Any] | None:
    """The CF grid-mapping attributes in the file: those that the variable names, if it does."""
    named = str(array.attrs.get("grid_mapping", array.encoding.get("grid_mapping", ""))).split(":")[0].strip()
    if named in array.coords:
        return _read(array.coords[named].attrs)
    mappings = [c.attrs for c in array.coords.values() if "grid_mapping_name" in c.attrs or "crs_wkt" in c.attrs]
    return _read(mappings[0]) if mappings else None


TEXTS = ("crs_wkt", "spatial_ref", "proj4", "proj4_params", "proj4text", "proj4string")


def _read(attributes: dict[str, Any]) -> dict[str, Any]:
    """The CF attributes; from WKT or a PROJ string if the file has nothing else."""
    texts = [attributes[key] for key in TEXTS if attributes.get(key)]
    return mapping_of(attributes if "grid_mapping_name" in attributes or not texts else str(texts[0]))


POSITIONS = {
    "latitude": ("lat", "xlat", "nav_lat", "latitude", "lats"),
    "longitude": ("lon", "xlong", "nav_lon", "longitude", "lons"),
}


def _two_d(array: Any, y: str, x: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The latitude and longitude of every point in the file, (y, x) float, if it has them."""
    positions = {}
    for name, c in array.coords.items():
        for key, names in POSITIONS.items():
            if set(c.dims) == {y, x} and (c.attrs.get("standard_name") == key or str(name).lower() in names):
                positions[key] = c.transpose(y, x).values
    return (positions["latitude"], positions["longitude"]) if len(positions) == 2 else None


UNSTRUCTURED = ("cell", "cells", "ncells", "ncell", "node", "nodes", "values", "grid_size", "rgrid", "reduced_points")


def refuse_unstructured(array: Any, file: str) -> None:
    """Raise UserError if a variable has a list of points instead of rows and columns."""
    lists = [str(d) for d in array.dims if str(d).lower() in UNSTRUCTURED]
    if lists:
        raise UserError(
            f"lies on an unstructured or reduced grid (dimension {lists[0]}): remap it first, for example with "
            f"`cdo remapcon,r360x180 {file} regular.nc`"
        )
