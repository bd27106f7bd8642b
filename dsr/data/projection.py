"""Where a projection puts its points: CF grid-mapping attributes to latitude and longitude, and back, by PROJ."""

import json
from functools import cache
from typing import Any

import numpy as np

Mapping = dict[str, Any]  # CF grid-mapping attributes, as JSON has them


def plain(attributes: Mapping) -> Mapping:
    """Grid-mapping attributes without numpy types, as JSON and stores have them."""
    return {key: value.tolist() if hasattr(value, "tolist") else value for key, value in attributes.items()}


def degrees(mapping: Mapping, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude of projection coordinates: metres, or degrees where the pole is rotated."""
    longitude, latitude = _transformer(json.dumps(mapping, sort_keys=True)).transform(x, y)
    return latitude, longitude


def coordinates(mapping: Mapping, latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Projection coordinates y and x of latitudes and longitudes."""
    transformer = _transformer(json.dumps(mapping, sort_keys=True))
    x, y = transformer.transform(longitude, latitude, direction="INVERSE")
    return y, x


def areal_scale(mapping: Mapping, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """How much larger an area is in projection coordinates than on the earth."""
    from pyproj import Proj

    return np.asarray(Proj(crs(mapping)).get_factors(longitude, latitude).areal_scale)


def alike(a: Mapping, b: Mapping) -> bool:
    """Whether two grid mappings are of one projection."""
    return a == b or (bool(a) and bool(b) and crs(a) == crs(b))


def crs(mapping: Mapping) -> Any:
    """The pyproj CRS of grid-mapping attributes, without a transformation that was bound to it."""
    return _crs(json.dumps(mapping, sort_keys=True))


@cache
def _crs(mapping: str) -> Any:
    from pyproj import CRS

    known = CRS.from_cf(json.loads(mapping))  # slow: it looks the datum up
    return known.source_crs if known.is_bound else known


@cache
def _transformer(mapping: str) -> Any:
    from pyproj import Transformer

    return Transformer.from_crs(_crs(mapping), "EPSG:4326", always_xy=True)
