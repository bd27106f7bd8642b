"""Winds along a grid's axes become those towards east and north, by the angle that the projection itself has."""

import numpy as np
import pytest
import xarray as xr
from pyproj import Proj

from dsr.data.archive import open_archive
from dsr.data.grid import Grid
from dsr.data.store import Variable
from dsr.data.winds import axis_angle, rotation
from dsr.errors import UserError

SPHERE = {"earth_radius": 6371229.0}
LAMBERT = {
    "grid_mapping_name": "lambert_conformal_conic",
    "standard_parallel": [38.5, 38.5],
    "longitude_of_central_meridian": -97.5,
    "latitude_of_projection_origin": 38.5,
    **SPHERE,
}
ROTATED = {
    "grid_mapping_name": "rotated_latitude_longitude",
    "grid_north_pole_latitude": 39.25,
    "grid_north_pole_longitude": -162.0,
    **SPHERE,
}


def test_on_a_lambert_grid_the_angle_is_the_convergence_of_its_meridians():
    grid = Grid(np.linspace(-1.5e6, 1.5e6, 7), np.linspace(-2e6, 2e6, 9), LAMBERT)
    # the cone's constant is the sine of its parallel: the convergence is exactly n (lon - lon0), clockwise
    expected = -np.sin(np.deg2rad(38.5)) * np.deg2rad(grid.longitude + 97.5)
    np.testing.assert_allclose(axis_angle(grid), expected, atol=1e-6)


def test_a_rotated_pole_agrees_with_proj():
    grid = Grid(np.arange(-10.0, 10, 4), np.arange(-20.0, 20, 5), ROTATED)
    pole = Proj("+proj=ob_tran +o_proj=longlat +o_lat_p=39.25 +o_lon_p=0 +lon_0=18 +R=6371229")
    x, y = np.meshgrid(grid.x, grid.y)
    step = 1e-4
    east, north = pole(np.deg2rad(x + step), np.deg2rad(y), inverse=True, radians=True)
    lon, lat = pole(np.deg2rad(x), np.deg2rad(y), inverse=True, radians=True)
    expected = np.arctan2(north - lat, (east - lon) * np.cos(lat))
    np.testing.assert_allclose(axis_angle(grid), expected, atol=1e-4)


def write(path, names=("u10", "v10"), standard_names=("x_wind", "y_wind")):
    """A wind of 10 m/s along the x axis of a Lambert grid."""
    y, x = np.arange(5) * 3e5, -2e6 + np.arange(6) * 3e5
    grid = Grid(y, x, LAMBERT)
    dataset = xr.Dataset(coords={"time": np.datetime64("2020-01-01", "ns") + np.arange(3) * np.timedelta64(1, "h")})
    for name, standard, value in zip(names, standard_names, (10.0, 0.0), strict=False):
        attributes = {"units": "m s-1", "standard_name": standard, "grid_mapping": "crs"}
        dataset[name] = (("time", "y", "x"), np.full((3, 5, 6), value, np.float32), attributes)
    dataset = dataset.assign_coords(
        y=("y", y, {"units": "m", "standard_name": "projection_y_coordinate"}),
        x=("x", x, {"units": "m", "standard_name": "projection_x_coordinate"}),
        crs=((), 0, LAMBERT),
    )
    dataset.to_netcdf(path)
    return str(path), grid


def test_winds_are_turned_on_request_and_marked_otherwise(tmp_path):
    path, grid = write(tmp_path / "w.nc")
    as_it_is = open_archive([path])
    assert any("u10 is the wind along the axes of the grid" in note for note in as_it_is.notes)
    np.testing.assert_array_equal(as_it_is.read(0)[:, 0, 0], [10, 0])
    turned = open_archive([path], rotate_winds=True)
    assert [v.standard_name for v in turned.variables] == ["eastward_wind", "northward_wind"] and not turned.notes
    convergence = np.sin(np.deg2rad(38.5)) * np.deg2rad(grid.longitude + 97.5)
    np.testing.assert_allclose(turned.read(1)[0], 10 * np.cos(convergence), rtol=1e-5)
    np.testing.assert_allclose(turned.read(1)[1], -10 * np.sin(convergence), rtol=1e-4, atol=1e-4)


def test_one_component_cannot_be_turned(tmp_path):
    path, _ = write(tmp_path / "w.nc", names=("u10",))
    with pytest.raises(UserError, match="needs both components"):
        open_archive([path], rotate_winds=True)


def test_several_winds_are_matched_by_name():
    grid = Grid(np.linspace(-1.5e6, 1.5e6, 7), np.linspace(-2e6, 2e6, 9), LAMBERT)
    names = {"u10": "x_wind", "u80": "x_wind", "v80": "y_wind", "v10": "y_wind"}
    assert rotation([Variable(n, "m s-1", s) for n, s in names.items()], grid, "a").pairs == [(0, 3), (1, 2)]
    names = {"low": "x_wind", "u80": "x_wind", "v80": "y_wind", "v10": "y_wind"}
    with pytest.raises(UserError, match="low has no unique partner"):
        rotation([Variable(n, "m s-1", s) for n, s in names.items()], grid, "a")


def test_winds_that_are_turned_already_stay():
    grid = Grid(np.linspace(-1.5e6, 1.5e6, 7), np.linspace(-2e6, 2e6, 9), LAMBERT)
    names = {"u10": "eastward_wind", "v10": "northward_wind"}
    assert rotation([Variable(n, "m s-1", s) for n, s in names.items()], grid, "a").pairs == []
