"""Map projections: from coordinates and CF grid-mapping attributes to latitude and longitude and back, with PROJ.

Coordinates are in metres, or in degrees for a rotated pole. Latitudes and longitudes refer to WGS 84: PROJ transforms
them from a national datum, but those on a model's sphere, or on an ellipsoid without a known datum, are used unchanged.
Transforming these would move the positions given in files by up to 20 km.
"""

import json
import warnings
from functools import cache
from typing import Any

import numpy as np

from dsr.errors import UserError

Mapping = dict[str, Any]  # CF grid-mapping attributes, as in JSON

POLAR, LAMBERT = "polar_stereographic", "lambert_conformal_conic"
ORIGIN = ("longitude_of_projection_origin", "latitude_of_projection_origin")
CENTRAL = ("longitude_of_central_meridian", "latitude_of_projection_origin")
# Required by CF; PROJ would silently use 0.
REQUIRED = {
    "albers_conical_equal_area": ("standard_parallel", *CENTRAL),
    "azimuthal_equidistant": ORIGIN,
    "lambert_azimuthal_equal_area": ORIGIN,
    LAMBERT: ("standard_parallel", *CENTRAL),
    "mercator": ORIGIN[:1],
    POLAR: ("straight_vertical_longitude_from_pole",),
    "rotated_latitude_longitude": ("grid_north_pole_latitude", "grid_north_pole_longitude"),
    "stereographic": ORIGIN,
    "transverse_mercator": CENTRAL,
}
FIGURE = ("earth_radius", "semi_major_axis", "reference_ellipsoid_name", "horizontal_datum_name", "crs_wkt")


def mapping_of(given: str | Mapping) -> Mapping:
    """The CF grid-mapping attributes of a CRS: given as such, as a PROJ string, WKT or a code such as "EPSG:3413".

    Raises UserError if PROJ does not understand it.
    """
    if not isinstance(given, str):
        return plain(given)
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what CF attributes cannot express is in crs_wkt
            return plain(_unbound(CRS.from_user_input(given)).to_cf())
    except CRSError as error:
        raise UserError(f"crs: {given!r} is not a CRS that PROJ knows ({error})") from None


def in_metres(mapping: Mapping, scale: float) -> Mapping:
    """The attributes for coordinates multiplied by `scale`: false eastings are in the unit of the coordinates."""
    false = ("false_easting", "false_northing")
    return {key: value * scale if key in false else value for key, value in plain(mapping).items()}


def plain(attributes: Mapping) -> Mapping:
    """Grid-mapping attributes without numpy types and tuples, as in JSON and stores."""
    return {
        key: value.tolist() if hasattr(value, "tolist") else list(value) if isinstance(value, tuple) else value
        for key, value in attributes.items()
    }


def has_figure(mapping: Mapping) -> bool:
    """Whether the attributes define a sphere or ellipsoid; otherwise PROJ uses WGS 84."""
    return any(key in mapping for key in FIGURE)


def degrees(mapping: Mapping, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude of coordinates; infinite where the projection has no such point."""
    transformer, metres = _transformer(_key(mapping))
    longitude, latitude = transformer.transform(x / metres, y / metres)
    return latitude, longitude


def coordinates(mapping: Mapping, latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates y and x of latitudes and longitudes; infinite where the projection is undefined."""
    transformer, metres = _transformer(_key(mapping))
    x, y = transformer.transform(longitude, latitude, direction="INVERSE")
    return y * metres, x * metres


def areal_scale(mapping: Mapping, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """The ratio of an area on the map to the area on the earth."""
    from pyproj import Proj

    return np.asarray(Proj(_crs(_key(mapping))).get_factors(longitude, latitude).areal_scale)


def same_projection(a: Mapping, b: Mapping) -> bool:
    """Whether two grid mappings describe the same projection."""
    return a == b or (bool(a) and bool(b) and bool(_crs(_key(a)) == _crs(_key(b))))


def _key(mapping: Mapping) -> str:
    return json.dumps(mapping, sort_keys=True)


@cache
def _crs(key: str) -> Any:
    """The pyproj CRS, without a bound transformation. Raises UserError if there is none."""
    from pyproj.exceptions import CRSError

    attributes = json.loads(key)
    name = attributes.get("grid_mapping_name")
    try:
        crs = _from_wkt(attributes)
        if crs is None:
            crs = _from_attributes(_checked(attributes))
    except (CRSError, KeyError, ValueError) as error:
        raise UserError(f"PROJ cannot use the grid mapping {name}: {error}") from None
    return _unbound(crs)


def _unbound(crs: Any) -> Any:
    return crs.source_crs if crs.is_bound else crs


def _from_wkt(attributes: Mapping) -> Any:
    """The CRS of `crs_wkt` unless it contradicts the attributes, which take precedence in CF."""
    from pyproj import CRS

    text = attributes.get("crs_wkt") or attributes.get("spatial_ref")
    if not text:
        return None
    crs = CRS.from_wkt(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from_text = plain(crs.to_cf())
    numbers = [key for key, value in from_text.items() if isinstance(value, float | list) and key in attributes]
    return crs if all(np.allclose(attributes[key], from_text[key], rtol=1e-7, atol=0) for key in numbers) else None


def _from_attributes(attributes: Mapping) -> Any:
    """The CRS of the other attributes: a figure of the earth in metres takes precedence over a name."""
    from pyproj import CRS

    crs: Any = CRS.from_cf(attributes)  # slow: it looks the datum up
    axes = {"earth_radius": crs.ellipsoid.semi_major_metre, "semi_major_axis": crs.ellipsoid.semi_major_metre}
    axes["semi_minor_axis"] = crs.ellipsoid.semi_minor_metre
    if all(abs(float(attributes.get(key, metres)) - metres) < 1 for key, metres in axes.items()):
        return crs
    names = ("reference_ellipsoid_name", "horizontal_datum_name", "geographic_crs_name")
    return CRS.from_cf({key: value for key, value in attributes.items() if key not in names})


def _checked(attributes: Mapping) -> Mapping:
    """The attributes in a form that PROJ reads correctly. Raises UserError if one is missing."""
    given = {key: value for key, value in attributes.items() if key not in ("crs_wkt", "spatial_ref")}
    name, parallel = given.get("grid_mapping_name"), given.get("standard_parallel")
    if isinstance(parallel, list) and len(parallel) == 1:
        parallel = given["standard_parallel"] = parallel[0]
    if name == LAMBERT and isinstance(parallel, int | float):
        given["standard_parallel"] = [parallel, parallel]  # PROJ would use a single one as the latitude of origin too
    if name == POLAR and ORIGIN[0] in given:
        given.setdefault("straight_vertical_longitude_from_pole", given[ORIGIN[0]])
    absent = [key for key in REQUIRED.get(str(name), ()) if key not in given]
    if absent:
        raise UserError(
            f"the grid mapping {name} lacks {', '.join(absent)}; give the complete mapping as `crs` in a recipe"
        )
    return given


@cache
def _transformer(key: str) -> tuple[Any, float]:
    """The transformation from the CRS to longitude and latitude, and the length of its unit in metres."""
    from pyproj import Transformer

    crs = _crs(key)
    axis = crs.axis_info[0]
    metres = 1.0 if axis.unit_name == "degree" else axis.unit_conversion_factor
    return Transformer.from_crs(crs, "EPSG:4326", always_xy=True), metres
