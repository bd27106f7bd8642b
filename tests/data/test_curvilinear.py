"""Files' own two-dimensional latitudes and longitudes: held against a grid, and a grid made of them."""

import numpy as np
import pytest
import xarray as xr

from dsr.data import projection
from dsr.data.curvilinear import precision
from dsr.data.grid import Grid
from dsr.errors import UserError

pytestmark = pytest.mark.slow

ROTATED = {
    "grid_mapping_name": "rotated_latitude_longitude",
    "grid_north_pole_latitude": 39.25,
    "grid_north_pole_longitude": -162.0,
}
LAMBERT = projection.mapping_of("+proj=lcc +lat_1=30 +lat_2=60 +lat_0=39 +lon_0=-97 +R=6370000")
POLAR = projection.mapping_of("+proj=stere +lat_0=-90 +lat_ts=-60 +lon_0=170 +R=6371229")
GRIDS = {
    "rotated pole": Grid(-8 + 0.11 * np.arange(60), -12 + 0.11 * np.arange(70), ROTATED),
    "Lambert": Grid(-4e5 + 9e3 * np.arange(60), 2e5 + 9e3 * np.arange(70), LAMBERT),
    "Lambert, north first": Grid(4e5 - 9e3 * np.arange(60), -2e5 + 9e3 * np.arange(70), LAMBERT),
    "Lambert on WGS 84": Grid(
        1e6 + 1e4 * np.arange(80), -9e5 + 1e4 * np.arange(90), projection.mapping_of("EPSG:3034")
    ),
    "polar stereographic": Grid(-1e6 + 25e3 * np.arange(80), -5e5 + 25e3 * np.arange(70), POLAR),
}


@pytest.mark.parametrize("which", GRIDS)
@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_a_projection_is_recovered_from_positions_alone(which, kind):
    given = GRIDS[which]
    found = Grid.from_2d(given.latitude.astype(kind), given.longitude.astype(kind))
    rows, columns = given.index_on(found)
    np.testing.assert_allclose(rows, np.arange(given.shape[0])[:, None] + 0 * rows, atol=0.01)
    np.testing.assert_allclose(columns, np.arange(given.shape[1]) + 0 * columns, atol=0.01)
    assert found.mapping["grid_mapping_name"].split("_")[0] in which.lower().replace("rotated pole", "rotated")


@pytest.mark.parametrize("which", GRIDS)
def test_a_projection_that_is_told_is_taken(which):
    given = GRIDS[which]
    rounded = [np.round(values, 4) for values in (given.latitude, given.longitude)]
    found = Grid.from_2d(*rounded, given.mapping)
    assert found.mapping == given.mapping
    for name, step in zip("yx", given.spacing, strict=True):
        np.testing.assert_allclose(getattr(found, name), getattr(given, name), atol=0.01 * abs(step))
        np.testing.assert_allclose(np.diff(getattr(found, name)), np.diff(getattr(found, name))[0])


def test_a_sphere_that_is_not_said_is_found():
    """On WGS 84, which PROJ would take, the same attributes lie tenths of a degree off."""
    given = GRIDS["Lambert"]
    figure = ("crs_wkt", "semi_major_axis", "semi_minor_axis", "inverse_flattening", "reference_ellipsoid_name")
    names = ("horizontal_datum_name", "geographic_crs_name")
    unsaid = {key: value for key, value in given.mapping.items() if key not in (*figure, *names)}
    found = Grid.from_2d(given.latitude, given.longitude, unsaid)
    assert "earth_radius" in found.mapping
    assert found.check_position(given.latitude, given.longitude) == ""


def test_parallels_and_meridians_need_no_projection():
    latitude, longitude = np.meshgrid([40.0, 41.5, 42.0], [358.0, 359.0, 0.0, 1.0], indexing="ij")
    found = Grid.from_2d(latitude.astype("f4"), longitude.astype("f4"))
    assert found.mapping is None
    np.testing.assert_allclose(found.y, [40, 41.5, 42])
    np.testing.assert_allclose(found.x, [358, 359, 360, 361])


def test_what_lies_on_no_projection_is_refused_with_the_line_that_regrids_it():
    rows, columns = np.mgrid[:40, :50].astype(float)
    latitude, longitude = 40 + 0.1 * rows + 0.5 * np.sin(columns / 9), -10 + 0.12 * columns + 0.4 * np.cos(rows / 7)
    with pytest.raises(UserError, match=r"`crs` in a recipe.*cdo sellonlatbox,-11,-3,39,45 -remapbil,global_0.1 IN.nc"):
        Grid.from_2d(latitude, longitude)
    with pytest.raises(UserError, match="cells from the rows and columns of rotated_latitude_longitude"):
        Grid.from_2d(latitude, longitude, ROTATED)


@pytest.mark.parametrize("hole", [np.nan, 1e20])
def test_places_that_are_missing_are_refused(hole):
    latitude = GRIDS["Lambert"].latitude.copy()
    latitude[3, 4] = hole
    with pytest.raises(UserError, match="some latitudes or longitudes are missing"):
        Grid.from_2d(latitude, GRIDS["Lambert"].longitude)


# A grid held against what its file says


@pytest.mark.parametrize("which", GRIDS)
@pytest.mark.parametrize("write", [np.float64, np.float32, lambda values: np.round(values, 2)])
def test_positions_agree_to_the_precision_of_the_files(which, write):
    grid = GRIDS[which]
    assert grid.check_position(write(grid.latitude), write(grid.longitude % 360)) == ""


@pytest.mark.parametrize("step", [0.25, -0.25])
def test_a_grid_of_latitudes_is_checked_across_the_seam(step):
    grid = Grid(60 + step * np.arange(20), -3 + 0.25 * np.arange(30))
    assert grid.check_position(grid.latitude, grid.longitude % 360) == ""
    with pytest.raises(UserError, match=r"row 0, column 0 they are 60\.2 N, 3 W, but by the grid 60 N, 3 W"):
        grid.check_position(grid.latitude + 0.2, grid.longitude)


def test_a_small_departure_is_noted_and_a_large_one_refused():
    grid = GRIDS["Lambert"]
    cell = 9 / 111.195
    missing = grid.latitude.copy()
    missing[5, 5] = np.nan
    assert "up to 0.049 cells off" in grid.check_position(missing + 0.05 * cell, grid.longitude)
    with pytest.raises(UserError, match=r"up to 0\.2 cells off its grid \(lambert_conformal_conic\).*give the"):
        grid.check_position(grid.latitude + 0.2 * cell, grid.longitude)


def test_a_pole_that_is_wrong_is_refused_and_the_right_one_named():
    wrong = {**ROTATED, "grid_north_pole_latitude": 18.0, "grid_north_pole_longitude": -140.75}
    grid = GRIDS["rotated pole"]
    with pytest.raises(UserError, match=r'this one matches: .*"grid_north_pole_latitude": 39.25'):
        Grid(grid.y, grid.x, wrong).check_position(grid.latitude, grid.longitude)


def test_a_shape_that_is_another_is_refused():
    grid = GRIDS["Lambert"]
    with pytest.raises(UserError, match="shape"):
        grid.check_position(grid.latitude[:-1], grid.longitude[:-1])


def test_precision():
    values = np.linspace(3, 61, 12)
    assert precision(np.round(values, 2)) == pytest.approx(0.005)
    assert precision(np.round(values, 2).astype("f4")) == pytest.approx(0.005)
    assert precision(values.astype("f4")) == pytest.approx(4e-6, rel=0.3)
    assert precision(values) < 1e-6


# Real files


def test_a_real_file_whose_pole_is_wrong(real_data):
    """HIRHAM's domain has its pole at 39.25 N 162 W, as its latitudes say; the grid mapping names another."""
    with xr.open_dataset(real_data / "formats/small_rotPole_precipitation.nc") as file:
        y, x, latitude, longitude = (file[name].values for name in ("rlat", "rlon", "lat", "lon"))
        told = dict(file["rotated_pole"].attrs)
    with pytest.raises(UserError, match=r'this one matches: .*39.25, "grid_north_pole_longitude": -162.0'):
        Grid(y, x, told).check_position(latitude, longitude)
    assert Grid(y, x, ROTATED).check_position(latitude, longitude) == ""
    found = Grid.from_2d(latitude, longitude)
    np.testing.assert_allclose(found.y, y, atol=1e-4)
    np.testing.assert_allclose(found.x, x, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "parallel_or_meridian"),
    [
        ("lambert.grib", {"standard_parallel": 54.0, "longitude_of_central_meridian": 3.0}),
        ("ST4.2013052210.01h", {"straight_vertical_longitude_from_pole": -105.0}),
    ],
)
def test_real_grib(real_data, name, parallel_or_meridian):
    import cfgrib

    file = cfgrib.open_datasets(str(real_data / "formats" / name), backend_kwargs={"indexpath": ""})[0]
    latitude, longitude = (file[key].values[::5, ::5] for key in ("latitude", "longitude"))
    found = Grid.from_2d(latitude, longitude)
    assert found.check_position(latitude, longitude) == ""
    for key, value in parallel_or_meridian.items():
        assert (found.mapping[key] - value) % 180 == pytest.approx(0, abs=1e-4)
