"""The grid that a variable lies on, from its coordinates, its grid mapping, and its own latitudes and longitudes."""

import json
from typing import Any

import numpy as np

from dsr.data.grid import ROTATED, Grid
from dsr.data.projection import in_metres, mapping_of, says_figure
from dsr.data.units import conversion
from dsr.errors import UserError

GEOGRAPHIC = "latitude_longitude"
_GRIDS: dict[Any, tuple[Grid, str]] = {}  # one object for all files of one grid: projecting takes time


def grid(array: Any, y: str, x: str, crs: Any = None) -> tuple[Grid, str]:
    """The grid of a DataArray with dimensions `y` and `x`, and a note for people ("" mostly).

    `crs` is what a recipe says instead of the file: CF grid-mapping attributes, a PROJ string or an EPSG code.
    Raises UserError where the place of its points is not known, or the file contradicts itself.
    """
    rows, columns = _coordinate(array, y), _coordinate(array, x)
    mapping = _mapping(array) if crs is None else mapping_of(crs)
    two_d = _two_d(array, y, x)
    plain = rows is not None and columns is not None and _is_plain(rows, y, mapping, told=crs is not None)
    key = (
        plain,
        json.dumps(mapping, sort_keys=True, default=str),
        *(c if c is None else (c.values.astype(float).tobytes(), str(c.attrs.get("units"))) for c in (rows, columns)),
        None if two_d is None else tuple(hash(c.tobytes()) for c in two_d),
    )
    if key not in _GRIDS:
        _GRIDS[key] = _made(rows, columns, mapping, two_d, plain, y, x)
    return _GRIDS[key]


def _made(rows: Any, columns: Any, mapping: Any, two_d: Any, plain: bool, y: str, x: str) -> tuple[Grid, str]:
    geographic = _name(mapping) == GEOGRAPHIC
    if plain:
        made = Grid(rows.values, columns.values, mapping if geographic else None)
        return made, "" if two_d is None else made.check_position(*two_d)
    mapping = None if geographic else mapping
    if rows is None or columns is None or mapping is None:
        if two_d is None:
            if rows is None or columns is None:
                raise UserError(f"dimensions {y} and {x} have no coordinates, and there is no latitude and longitude")
            raise UserError(
                f"{y} and {x} are those of a projection that the file does not name (CF grid_mapping): "
                'give it as "crs" in a recipe'
            )
        return Grid.from_2d(two_d[0], two_d[1], mapping), ""
    scales = [_scale(c, name) for c, name in ((rows, y), (columns, x))]
    made = Grid(rows.values * scales[0], columns.values * scales[1], in_metres(mapping, scales[0]))
    if two_d is not None:
        return made, made.check_position(*two_d)
    if not made.angular and not all(c.attrs.get("units") for c in (rows, columns)):
        return made, f"its coordinates {y} and {x} have no units: metres were taken"
    known = made.angular or says_figure(mapping)
    return made, "" if known else "its grid mapping says no radius of the earth: WGS 84 was taken"


def _coordinate(array: Any, dim: str) -> Any:
    """The 1-D coordinate along `dim`; None where it has none, or one that only counts points."""
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


def _is_plain(rows: Any, y: str, mapping: Any, told: bool) -> bool:
    """Whether coordinates are latitude and longitude of the earth; `told`: a recipe gave the mapping, and is right."""
    standard_name, units = rows.attrs.get("standard_name"), rows.attrs.get("units")
    if not _is_degrees(rows, y):
        return _name(mapping) == GEOGRAPHIC and units is None
    if standard_name == "grid_latitude" or str(rows.name).lower() == "rlat":
        return False
    return _name(mapping) != ROTATED or (standard_name == "latitude" and not told)


def _name(mapping: Any) -> str:
    return str((mapping or {}).get("grid_mapping_name", ""))


def _scale(coordinate: Any, name: str) -> float:
    units = str(coordinate.attrs.get("units", "m"))
    return 1.0 if units.startswith("deg") else conversion(units, "m", f"coordinate {name}")[0]


def _mapping(array: Any) -> dict[str, Any] | None:
    """The CF grid-mapping attributes of the file, of the variable's own mapping where it names one."""
    named = str(array.attrs.get("grid_mapping", array.encoding.get("grid_mapping", ""))).split(":")[0].strip()
    if named in array.coords:
        return _read(array.coords[named].attrs)
    mappings = [c.attrs for c in array.coords.values() if "grid_mapping_name" in c.attrs or "crs_wkt" in c.attrs]
    return _read(mappings[0]) if mappings else None


TEXTS = ("crs_wkt", "spatial_ref", "proj4", "proj4_params", "proj4text", "proj4string")


def _read(attributes: dict[str, Any]) -> dict[str, Any]:
    """CF's attributes; from WKT or a PROJ string where the file has nothing else."""
    texts = [attributes[key] for key in TEXTS if attributes.get(key)]
    return mapping_of(attributes if "grid_mapping_name" in attributes or not texts else str(texts[0]))


POSITIONS = {
    "latitude": ("lat", "xlat", "nav_lat", "latitude", "lats"),
    "longitude": ("lon", "xlong", "nav_lon", "longitude", "lons"),
}


def _two_d(array: Any, y: str, x: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The file's own latitude and longitude of every point, (y, x) float, where it has them."""
    found = {}
    for name, c in array.coords.items():
        for key, names in POSITIONS.items():
            if set(c.dims) == {y, x} and (c.attrs.get("standard_name") == key or str(name).lower() in names):
                found[key] = c.transpose(y, x).values
    return (found["latitude"], found["longitude"]) if len(found) == 2 else None


UNSTRUCTURED = ("cell", "cells", "ncells", "ncell", "node", "nodes", "values", "grid_size", "rgrid", "reduced_points")


def refuse_unstructured(array: Any, file: str) -> None:
    """Raise UserError where a variable lies on a list of points instead of rows and columns."""
    lists = [str(d) for d in array.dims if str(d).lower() in UNSTRUCTURED]
    if lists:
        raise UserError(
            f"lies on an unstructured or reduced grid (dimension {lists[0]}): remap it first, such as with "
            f"`cdo remapcon,r360x180 {file} regular.nc`"
        )
