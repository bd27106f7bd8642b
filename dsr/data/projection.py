"""Where a projection puts its points: CF grid-mapping attributes to latitude and longitude, and back, by PROJ.

Coordinates are in metres, or in degrees where the pole is rotated. Latitudes and longitudes are those of WGS 84: a
national datum is shifted as PROJ does it, but those of a model's sphere, or of an ellipsoid without a known datum, are
taken as they are. To shift them would move what stands in every file by up to 20 km.
"""

import json
import warnings
from functools import cache
from typing import Any

import numpy as np

from dsr.errors import UserError

Mapping = dict[str, Any]  # CF grid-mapping attributes, as JSON has them

POLAR, LAMBERT = "polar_stereographic", "lambert_conformal_conic"
ORIGIN = ("longitude_of_projection_origin", "latitude_of_projection_origin")
CENTRAL = ("longitude_of_central_meridian", "latitude_of_projection_origin")
# What CF demands and PROJ would silently take for 0.
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
    """The CF grid-mapping attributes of a CRS: themselves, or of a PROJ string, WKT or a code such as "EPSG:3413".

    Raises UserError where PROJ does not understand it.
    """
    if not isinstance(given, str):
        return plain(given)
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what CF's attributes cannot say stands in crs_wkt
            return plain(_unbound(CRS.from_user_input(given)).to_cf())
    except CRSError as error:
        raise UserError(f"crs: {given!r} is no CRS that PROJ knows ({error})") from None


def in_metres(mapping: Mapping, scale: float) -> Mapping:
    """The attributes for coordinates that were multiplied by `scale`: false eastings are in the coordinates' unit."""
    false = ("false_easting", "false_northing")
    return {key: value * scale if key in false else value for key, value in plain(mapping).items()}


def plain(attributes: Mapping) -> Mapping:
    """Grid-mapping attributes without numpy types and tuples, as JSON and stores have them."""
    return {
        key: value.tolist() if hasattr(value, "tolist") else list(value) if isinstance(value, tuple) else value
        for key, value in attributes.items()
    }


def says_figure(mapping: Mapping) -> bool:
    """Whether the attributes say what sphere or ellipsoid they are of; else PROJ takes WGS 84."""
    return any(key in mapping for key in FIGURE)


def degrees(mapping: Mapping, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude of coordinates; infinite where the projection has no such point."""
    transformer, metres = _transformer(_key(mapping))
    longitude, latitude = transformer.transform(x / metres, y / metres)
    return latitude, longitude


def coordinates(mapping: Mapping, latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates y and x of latitudes and longitudes; infinite where the projection does not reach."""
    transformer, metres = _transformer(_key(mapping))
    x, y = transformer.transform(longitude, latitude, direction="INVERSE")
    return y * metres, x * metres


def areal_scale(mapping: Mapping, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """How much larger an area is on the projection than on the earth."""
    from pyproj import Proj

    return np.asarray(Proj(_crs(_key(mapping))).get_factors(longitude, latitude).areal_scale)


def alike(a: Mapping, b: Mapping) -> bool:
    """Whether two grid mappings are of one projection."""
    return a == b or (bool(a) and bool(b) and bool(_crs(_key(a)) == _crs(_key(b))))


def _key(mapping: Mapping) -> str:
    return json.dumps(mapping, sort_keys=True)


@cache
def _crs(key: str) -> Any:
    """The pyproj CRS, without a transformation that was bound to it. Raises UserError where there is none."""
    from pyproj.exceptions import CRSError

    attributes = json.loads(key)
    name = attributes.get("grid_mapping_name")
    try:
        known = _of_wkt(attributes)
        if known is None:
            known = _of_attributes(_complete(attributes))
    except (CRSError, KeyError, ValueError) as error:
        raise UserError(f"the grid mapping {name} is none that PROJ can place: {error}") from None
    return _unbound(known)


def _unbound(known: Any) -> Any:
    return known.source_crs if known.is_bound else known


def _of_wkt(attributes: Mapping) -> Any:
    """The CRS of `crs_wkt` unless the attributes, which take precedence by CF, say otherwise."""
    from pyproj import CRS

    text = attributes.get("crs_wkt") or attributes.get("spatial_ref")
    if not text:
        return None
    known = CRS.from_wkt(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told = plain(known.to_cf())
    numbers = [key for key, value in told.items() if isinstance(value, float | list) and key in attributes]
    return known if all(np.allclose(attributes[key], told[key], rtol=1e-7, atol=0) for key in numbers) else None


def _of_attributes(attributes: Mapping) -> Any:
    """The CRS of the other attributes: a figure of the earth that is given in metres counts more than a name."""
    from pyproj import CRS

    known: Any = CRS.from_cf(attributes)  # slow: it looks the datum up
    axes = {"earth_radius": known.ellipsoid.semi_major_metre, "semi_major_axis": known.ellipsoid.semi_major_metre}
    axes["semi_minor_axis"] = known.ellipsoid.semi_minor_metre
    if all(abs(float(attributes.get(key, metres)) - metres) < 1 for key, metres in axes.items()):
        return known
    names = ("reference_ellipsoid_name", "horizontal_datum_name", "geographic_crs_name")
    return CRS.from_cf({key: value for key, value in attributes.items() if key not in names})


def _complete(attributes: Mapping) -> Mapping:
    """Attributes as PROJ reads them rightly. Raises UserError where one is not there."""
    given = {key: value for key, value in attributes.items() if key not in ("crs_wkt", "spatial_ref")}
    name, parallel = given.get("grid_mapping_name"), given.get("standard_parallel")
    if isinstance(parallel, list) and len(parallel) == 1:
        parallel = given["standard_parallel"] = parallel[0]
    if name == LAMBERT and isinstance(parallel, int | float):
        given["standard_parallel"] = [parallel, parallel]  # with one, PROJ takes it for the latitude of the origin too
    if name == POLAR and ORIGIN[0] in given:
        given.setdefault("straight_vertical_longitude_from_pole", given[ORIGIN[0]])
    lacking = [key for key in REQUIRED.get(str(name), ()) if key not in given]
    if lacking:
        raise UserError(f"the grid mapping {name} lacks {', '.join(lacking)}; give all of it as `crs` in a recipe")
    return given


@cache
def _transformer(key: str) -> tuple[Any, float]:
    """From the CRS to longitude and latitude, and how many metres its unit has."""
    from pyproj import Transformer

    known = _crs(key)
    axis = known.axis_info[0]
    metres = 1.0 if axis.unit_name == "degree" else axis.unit_conversion_factor
    return Transformer.from_crs(known, "EPSG:4326", always_xy=True), metres
