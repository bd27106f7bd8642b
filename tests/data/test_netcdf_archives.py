"""Shipped recipes on files written as the services write them: place, time, intervals, units and values."""

import math
from pathlib import Path

import cftime
import numpy as np
import pytest
import xarray as xr

from dsr.data.archive import open_archive
from dsr.data.choice import Choice
from dsr.data.decoding.time import points
from dsr.data.prepare import open_part, prepare
from dsr.data.recipe import load
from dsr.errors import UserError

from .archives import wrf
from .archives.netcdf import ARCHIVES, written
from .archives.truth import SPHERE, Truth

pytestmark = pytest.mark.slow

RECIPES = Path(__file__).resolve().parents[2] / "ds_configs/recipes"
RADIUS_OF_DEGREE = math.pi / 180 * 6_371_000  # m


def opened(folder: Path, name: str, part: str = "high"):
    return open_part(getattr(load(RECIPES / f"{name}.json", folder), part), folder)


def cells_off(grid, truth: Truth) -> float:
    """How far the furthest point lies from where it is, in cells."""
    north = (grid.latitude - truth.latitude) * RADIUS_OF_DEGREE
    around = (grid.longitude - truth.longitude + 180) % 360 - 180
    east = around * np.cos(np.deg2rad(truth.latitude)) * RADIUS_OF_DEGREE
    return float(np.hypot(north, east).max() / (1000 * min(grid.spacing_km)))


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_recipe_takes_from_files_what_they_hold(tmp_path, name):
    truth = written(tmp_path, name)
    archive = opened(tmp_path, name)
    assert archive.grid.shape == truth.latitude.shape and cells_off(archive.grid, truth) < 1e-3
    assert archive.calendar == truth.calendar
    assert not any("is taken as" in note and "means" not in note for note in archive.notes)
    valid = cftime.num2date(archive.init_time + archive.lead_time, "seconds since 1970-01-01", truth.calendar)
    assert [time.isoformat() for time in valid] == list(truth.times)
    assert [v.name for v in archive.variables] == list(truth.fields)
    fields = np.stack([archive.read(i) for i in range(len(archive.frames))])
    for k, (variable, field) in enumerate(zip(archive.variables, truth.fields.values(), strict=True)):
        assert variable.units == field.units, variable
        assert variable.cell_methods == ("" if field.statistic == "point" else f"time: {field.statistic}"), variable
        np.testing.assert_allclose(fields[:, k], field.values, rtol=1e-6, atol=5e-4, err_msg=variable.name)
        for frame in archive.frames:
            lasts = tuple(frame.lead + round(3600 * hours) for hours in field.interval)
            assert archive.interval(variable.name, frame) == (None if field.statistic == "point" else lasts)


def cone(origin: float, north: float, parallels: tuple[float, float], radius: float) -> float:
    """The latitude so many metres north of the origin, along the central meridian of Lambert's cone on a sphere."""
    first, second, middle = (math.radians(value) for value in (*parallels, origin))
    slope = [math.tan(math.pi / 4 + value / 2) for value in (first, second)]
    n = math.sin(first)
    if first != second:
        n = math.log(math.cos(first) / math.cos(second)) / math.log(slope[1] / slope[0])
    scale = radius * math.cos(first) * slope[0] ** n / n
    distance = scale / math.tan(math.pi / 4 + middle / 2) ** n - north
    return math.degrees(2 * math.atan((scale / distance) ** (1 / n)) - math.pi / 2)


BY_HAND = {  # name: [((row, column), latitude, longitude), ...]
    "wrf_nests": [((7, 7), 45.0, 10.0), ((10, 7), cone(45, 30_000, (30, 60), SPHERE), 10.0)],
    "cordex_x4": [
        ((8, 10), 50.75, 18.0),
        ((0, 10), 49.87, 18.0),
    ],  # along the meridian of the pole, rotated = true degrees
    "hyras_x4": [((5, 10), 52.0, 10.0)],
    "meps_x4": [((6, 8), 63.3, 15.0), ((14, 8), cone(63.3, 20_000, (63.3, 63.3), 6_371_000), 15.0)],
    "hrrr_zarr_x4": [((5, 7), 38.5, -97.5), ((0, 7), cone(38.5, 15_000, (38.5, 38.5), 6_371_229), -97.5)],
    "lambert_places_x4": [((6, 8), 63.3, 15.0), ((14, 8), cone(63.3, 20_000, (63.3, 63.3), 6_371_000), 15.0)],
    "era5_cds_x4": [((0, 0), 46.0, 4.0), ((4, 8), 45.0, 6.0)],
    "arco_era5_x4": [((0, 0), 50.0, 354.0), ((4, 28), 49.0, 1.0)],
    "hres_to_era5_weatherbench2": [((16, 32), 0.0, 180.0), ((0, 0), -90.0, 0.0)],
    "imerg_x4": [((0, 0), 10.05, 20.05), ((3, 4), 10.35, 20.45)],
}


@pytest.mark.parametrize("name", BY_HAND)
def test_points_worked_out_by_hand(tmp_path, name):
    written(tmp_path, name)
    grid = opened(tmp_path, name).grid
    for (row, column), latitude, longitude in BY_HAND[name]:
        assert grid.latitude[row, column] == pytest.approx(latitude, abs=1e-5)
        assert (grid.longitude[row, column] - longitude + 180) % 360 - 180 == pytest.approx(0, abs=1e-5)


# WRF

STEREO = SPHERE * (1 + math.sin(math.radians(60)))  # of the polar projection that is true at 60 degrees
SOUTHERN = SPHERE * (1 + math.sin(math.radians(71)))


def polar(latitude: float, nearer: float, scale: float) -> float:
    """The latitude (northern) so many metres nearer to the pole, along a meridian of a polar stereographic map."""
    distance = scale * math.tan(math.radians(90 - latitude) / 2) - nearer
    return 90 - 2 * math.degrees(math.atan(distance / scale))


WRF = {  # PROJECTION: the points [7, 7], and 30 km further along one axis
    "LAMBERT": (45.0, 10.0, (10, 7), cone(45, 30_000, (30, 60), SPHERE), 10.0),
    "POLAR": (72.0, 20.0, (10, 7), polar(72, 30_000, STEREO), 20.0),
    "SOUTH": (-75.0, 170.0, (10, 7), -polar(75, -30_000, SOUTHERN), 170.0),
    "MERCATOR": (12.0, -60.0, (7, 10), 12.0, -60 + math.degrees(30_000 / (SPHERE * math.cos(math.radians(12))))),
    "ROTATED": (48.0, 9.0, (10, 7), 48 + math.degrees(30_000 / SPHERE), 9.0),
}


@pytest.mark.parametrize("projection", WRF)
def test_wrf_lies_where_its_projection_puts_it(tmp_path, projection):
    latitude, longitude, other, there, along = WRF[projection]
    truth = wrf.write(tmp_path / "wrf", getattr(wrf, projection), runs=2)
    grid = opened(tmp_path, "wrf_nests").grid
    assert cells_off(grid, truth) < 1e-3
    assert (grid.latitude[7, 7], grid.longitude[7, 7]) == pytest.approx((latitude, longitude), abs=1e-5)
    assert (grid.latitude[other], grid.longitude[other]) == pytest.approx((there, along), abs=1e-5)


@pytest.mark.parametrize("ratio", [3, 5])
@pytest.mark.parametrize("projection", WRF)
def test_a_nest_lies_in_its_parent_where_it_starts(tmp_path, projection, ratio):
    wrf.write(tmp_path / "wrf", getattr(wrf, projection), ratio=ratio, start=(5, 6), runs=2)
    high, low = opened(tmp_path, "wrf_nests").grid, opened(tmp_path, "wrf_nests", "low").grid
    rows, columns = high.index_on(low)
    # Cell 5 (counted from 1) reaches from 3.5 to 4.5 (from 0); the first nest point lies half a nest cell inside.
    expected = 3.5 + (np.arange(4 * ratio) + 0.5) / ratio
    np.testing.assert_allclose(rows, np.broadcast_to(expected[:, None], rows.shape), atol=1e-3)
    np.testing.assert_allclose(columns, np.broadcast_to(expected + 1, columns.shape), atol=1e-3)


def test_wrf_staggers_and_empties_buckets(tmp_path):
    truth = wrf.write(tmp_path, runs=2)
    wanted = {"u": Choice(source="U", select={"z": 1}), "resolved": Choice(source="RAINNC", units="kg m-2")}
    archive = open_archive([str(tmp_path / "wrfout_d02_*")], wanted)
    between = np.stack([archive.read(i)[0] for i in range(len(archive.frames))])
    # Level 1 holds 10, 11, 12 ... at the cells' western and eastern sides.
    np.testing.assert_allclose(between, np.broadcast_to(np.arange(12) + 10.5, between.shape), rtol=1e-6)
    fallen = np.stack([archive.read(i)[1] for i in range(len(archive.frames))])
    np.testing.assert_allclose(fallen, 0.75 * truth.fields["RAIN"].values, atol=1e-5)
    assert (0.75 * truth.fields["RAIN"].values[:3]).sum(0).max() > wrf.BUCKET  # so that one was emptied


def changed(source: Path, path: Path, how) -> Path:
    with xr.open_dataset(source, decode_times=False) as data:
        how(data.load()).to_netcdf(path)
    return path


def first(folder: Path) -> Path:
    return sorted(folder.glob("wrfout_d02_*"))[0]


def test_a_wrf_file_that_was_cropped_lies_where_it_lay(tmp_path):
    truth = wrf.write(tmp_path, runs=1)
    path = changed(
        first(tmp_path), tmp_path / "cut.nc", lambda d: d.isel(south_north=slice(3, 9), west_east=slice(2, 10))
    )
    grid = open_archive([str(path)], {"T2": Choice()}).grid
    np.testing.assert_allclose(grid.latitude, truth.latitude[3:9, 2:10], atol=1e-5)
    np.testing.assert_allclose(grid.longitude, truth.longitude[3:9, 2:10], atol=1e-5)


def test_a_wrf_run_begins_where_its_simulation_does_whatever_was_restarted(tmp_path):
    wrf.write(tmp_path, runs=1)
    began = {"SIMULATION_START_DATE": "2019-12-31_18:00:00"}
    path = changed(first(tmp_path), tmp_path / "restarted.nc", lambda d: d.assign_attrs(began))
    archive = open_archive([str(path)], {"RAIN": Choice()})
    assert {frame.lead for frame in archive.frames} == {3600 * hour for hour in (6, 7, 8, 9)}
    assert archive.interval("RAIN", archive.frames[1]) == (6 * 3600, 7 * 3600)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda d: d.assign_attrs(MAP_PROJ=0), "an idealised plane has no location on the earth"),
        (lambda d: d.assign(XLAT=d["XLAT"] + d["XTIME"] / 600), "a moving nest"),
        (lambda d: d.drop_vars(["XLAT", "XLONG"]), "has no XLAT and XLONG"),
        (lambda d: d.assign(Times=d["Times"].astype(str).str.replace("_", " at ").astype("S22")), "its Times are not"),
    ],
)
def test_a_wrf_file_that_cannot_be_placed_is_refused(tmp_path, how, message):
    wrf.write(tmp_path, runs=1)
    path = changed(first(tmp_path), tmp_path / "other.nc", how)
    with pytest.raises(UserError, match=f"other.nc: .*{message}"):
        open_archive([str(path)], {"T2": Choice()})


def test_winds_along_the_grid_are_marked_where_they_are_not_turned(tmp_path):
    wrf.write(tmp_path, wrf.POLAR, runs=1)
    archive = open_archive([str(first(tmp_path))], {"U10": Choice(), "V10": Choice()})
    assert [v.standard_name for v in archive.variables] == ["x_wind", "y_wind"]
    assert "U10 is the wind along the axes of the grid" in archive.notes[0]


# Others


def test_preliminary_era5_is_told_and_can_be_left_out(tmp_path):
    written(tmp_path, "era5_cds_x4")
    files = [str(tmp_path / "era5/data_stream-oper_stepType-instant.nc")]
    both = open_archive(files, {"t2m": Choice()})
    assert len(both.frames) == 96 and any("t2m is of expver 0005 at 24 of 96 times" in note for note in both.notes)
    assert len(open_archive(files, {"t2m": Choice(select={"expver": "0001"})}).frames) == 72


def test_versions_that_overlap_must_be_chosen(tmp_path):
    written(tmp_path, "era5_cds_until_2024_x4")
    with pytest.raises(UserError, match="expver 1; expver 5: choose with"):
        open_archive([str(tmp_path / "era5/*.nc")], {"t2m": Choice()})


def test_the_julian_calendar_is_the_real_one_only_where_they_agree():
    said = {"units": "days since 1900-03-01", "calendar": "julian"}
    seconds, calendar = points(xr.Variable("time", np.array([0, 43951], "i4")), said)
    assert calendar == "proleptic_gregorian"
    assert seconds.astype("M8[s]").astype(str).tolist() == ["1900-03-01T00:00:00", "2020-06-30T00:00:00"]
    for start in ("1850-01-01", "1900-02-28"):  # the day after is the 29th there, and none here
        with pytest.raises(UserError, match="supported only from March 1900 to February 2100"):
            points(xr.Variable("time", np.array([0, 43951], "i4")), said | {"units": f"days since {start}"})


@pytest.mark.parametrize("factor", [2, 4])
def test_racmo_lies_where_its_own_places_say_and_is_split_by_winters(real_data, tmp_path, factor):
    told = prepare(load(RECIPES / f"racmo_x{factor}.json", real_data), None, dry_run=True)
    assert "splits by time: train 1264, validation 270, test 271 samples" in told
    grid = open_part(load(RECIPES / f"racmo_x{factor}.json").high, real_data).grid
    with xr.open_dataset(real_data / "iberia/racmo_1983_2002.nc") as data:
        np.testing.assert_allclose(grid.latitude, data["lat"], atol=1e-6)
        np.testing.assert_allclose(grid.longitude, data["lon"], atol=1e-6)


def test_ncep_on_two_grids_becomes_one_and_its_rate_a_daily_sum(real_data):
    recipe = load(RECIPES / "ncep_eobs.json", real_data)
    told = prepare(recipe, None, dry_run=True)
    assert "ncep_levels.nc (5 x 7 points" in told and "is interpolated bilinearly onto the grid of" in told
    low = open_part(recipe.low[0], real_data)
    rain = low.variables[1]
    assert (rain.name, rain.units, rain.cell_methods) == ("pr", "kg m-2", "time: sum")
    with xr.open_dataset(real_data / "iberia/ncep_surface.nc") as data:
        expected = np.maximum(data["pr"][7].values.astype("f8"), 0) * 86400
    np.testing.assert_allclose(low.read(7)[1], expected, rtol=1e-5)
    assert low.interval("pr", low.frames[7]) == (0, 86400)  # stamped where the day begins
