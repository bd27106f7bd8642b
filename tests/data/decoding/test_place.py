"""The grid of a variable, from coordinates that say little, or what is not so."""

import numpy as np
import pytest
import xarray as xr
from pyproj import CRS

from dsr.data.decoding.place import grid
from dsr.errors import UserError

ROTATED = {
    "grid_mapping_name": "rotated_latitude_longitude",
    "grid_north_pole_latitude": 39.25,
    "grid_north_pole_longitude": -162.0,
}
DEGREES = {"units": "degrees"}
STEPS = np.arange(-5.0, 5.0)


def field(y=STEPS, x=STEPS, names=("y", "x"), mapping=None, **attributes):
    coordinates = {name: (name, values, attributes) for name, values in zip(names, (y, x), strict=True)}
    array = xr.DataArray(np.zeros((len(y), len(x)), "f4"), dims=names, coords=coordinates)
    if mapping is None:
        return array
    return array.assign_coords(crs=((), 0, mapping)).assign_attrs(grid_mapping="crs")


@pytest.mark.parametrize("names", [("y", "x"), ("lat", "lon"), ("rlat", "rlon")])
@pytest.mark.parametrize("recipe", [True, False])
def test_degrees_of_a_rotated_pole_are_turned_whatever_their_names(names, recipe):
    array = field(names=names, mapping=None if recipe else ROTATED, **DEGREES)
    found, _ = grid(array, *names, crs=ROTATED if recipe else None)
    assert found.latitude[5, 5] == pytest.approx(90 - 39.25) and found.longitude[5, 5] == pytest.approx(180 - 162)


def test_true_latitudes_stay_whatever_mapping_stands_beside_them():
    array = field(names=("lat", "lon"), mapping=ROTATED, **DEGREES)
    array.lat.attrs["standard_name"], array.lon.attrs["standard_name"] = "latitude", "longitude"
    assert grid(array, "lat", "lon")[0].latitude[5, 5] == 0


def test_degrees_that_the_own_latitudes_of_the_points_belie_are_refused():
    south, west = np.meshgrid(STEPS + 50, STEPS, indexing="ij")
    places = {"latitude": (("y", "x"), south), "longitude": (("y", "x"), west)}
    with pytest.raises(UserError, match="50 cells off its grid"):
        grid(field(**DEGREES).assign_coords(places), "y", "x")


@pytest.mark.parametrize("recipe", [True, False])
@pytest.mark.parametrize("mapping", ["crs_wkt", "spatial_ref", "proj4"])
def test_a_geographic_crs_makes_bare_coordinates_degrees(mapping, recipe):
    crs = CRS.from_epsg(4326)
    text = "+proj=longlat +datum=WGS84" if mapping == "proj4" else crs.to_wkt()
    y, x = np.arange(-87.5, 90, 5), np.arange(0.0, 360, 5)
    array = field(y, x, mapping=None if recipe else {mapping: text})
    found, _ = grid(array, "y", "x", crs=text if recipe else None)
    assert found.mapping is None and found.periodic
    assert found.area()[0, 0] / found.area()[18, 0] == pytest.approx(
        (np.sin(np.deg2rad(90)) - np.sin(np.deg2rad(85))) / np.sin(np.deg2rad(5))
    )


def test_longitudes_from_paris_are_counted_from_greenwich():
    mapping = {"grid_mapping_name": "latitude_longitude", "longitude_of_prime_meridian": 2.5}
    found, _ = grid(field(names=("lat", "lon"), mapping=mapping, **DEGREES), "lat", "lon")
    assert found.longitude[0, 0] == -2.5


def test_a_proj_string_of_the_file_places_its_points():
    text = "+proj=laea +lat_0=52 +lon_0=10 +x_0=4321000 +y_0=3210000 +ellps=GRS80"
    array = field(3_210_000 + STEPS * 1e4, 4_321_000 + STEPS * 1e4, mapping={"proj4": text}, units="m")
    found, _ = grid(array, "y", "x")
    assert (found.latitude[5, 5], found.longitude[5, 5]) == pytest.approx((52, 10))


def test_coordinates_of_a_projection_without_a_unit_are_noted():
    mapping = CRS.from_epsg(3035).to_cf()
    assert "have no units: metres are assumed" in grid(field(STEPS * 1e4, STEPS * 1e4, mapping=mapping), "y", "x")[1]


def test_latitudes_beyond_the_pole_are_refused():
    with pytest.raises(UserError, match="beyond 90"):
        grid(field(np.arange(85.0, 95), names=("lat", "lon"), **DEGREES), "lat", "lon")
