"""Shipped recipes on files written as the services write them: place, time, intervals, units and values."""

import math
from pathlib import Path

import cftime
import numpy as np
import pytest

from dsr.data.prepare import open_part
from dsr.data.recipe import load

from .archives import wrf
from .archives.netcdf import ARCHIVES, written
from .archives.truth import SPHERE, Truth

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
    "wrf": [((7, 7), 45.0, 10.0), ((10, 7), cone(45, 30_000, (30, 60), SPHERE), 10.0)],
    "cordex": [
        ((8, 10), 50.75, 18.0),
        ((0, 10), 49.87, 18.0),
    ],  # along the meridian of the pole, rotated = true degrees
    "hyras": [((5, 10), 52.0, 10.0)],
    "meps": [((6, 8), 63.3, 15.0), ((14, 8), cone(63.3, 20_000, (63.3, 63.3), 6_371_000), 15.0)],
    "hrrr_zarr": [((5, 7), 38.5, -97.5), ((0, 7), cone(38.5, 15_000, (38.5, 38.5), 6_371_229), -97.5)],
    "lambert_places": [((6, 8), 63.3, 15.0), ((14, 8), cone(63.3, 20_000, (63.3, 63.3), 6_371_000), 15.0)],
    "era5_cds": [((0, 0), 46.0, 4.0), ((4, 8), 45.0, 6.0)],
    "arco_era5": [((0, 0), 50.0, 354.0), ((4, 28), 49.0, 1.0)],
    "weatherbench2": [((16, 32), 0.0, 180.0), ((0, 0), -90.0, 0.0)],
    "imerg": [((0, 0), 10.05, 20.05), ((3, 4), 10.35, 20.45)],
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
    grid = opened(tmp_path, "wrf").grid
    assert cells_off(grid, truth) < 1e-3
    assert (grid.latitude[7, 7], grid.longitude[7, 7]) == pytest.approx((latitude, longitude), abs=1e-5)
    assert (grid.latitude[other], grid.longitude[other]) == pytest.approx((there, along), abs=1e-5)


@pytest.mark.parametrize("ratio", [3, 5])
@pytest.mark.parametrize("projection", WRF)
def test_a_nest_lies_in_its_parent_where_it_starts(tmp_path, projection, ratio):
    wrf.write(tmp_path / "wrf", getattr(wrf, projection), ratio=ratio, start=(5, 6), runs=2)
    high, low = opened(tmp_path, "wrf").grid, opened(tmp_path, "wrf", "low").grid
    rows, columns = high.index_on(low)
    # Cell 5 (counted from 1) reaches from 3.5 to 4.5 (from 0); the first nest point lies half a nest cell inside.
    expected = 3.5 + (np.arange(4 * ratio) + 0.5) / ratio
    np.testing.assert_allclose(rows, np.broadcast_to(expected[:, None], rows.shape), atol=1e-3)
    np.testing.assert_allclose(columns, np.broadcast_to(expected + 1, columns.shape), atol=1e-3)
