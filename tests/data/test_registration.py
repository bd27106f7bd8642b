"""A low grid that is named half a cell off is noticed by where its fields fit the high ones best."""

import re

import numpy as np
import pytest
import xarray as xr

from dsr.data import registration
from dsr.data.archive import open_archive
from dsr.data.prepare import prepare_from_options

from .archives import HOUR

STEP = 0.1


def weather(lat, lon, times, seed=0):
    """(time, y, x): waves of many lengths that move, known at every place."""
    random = np.random.default_rng(seed)
    fields = np.zeros((times, len(lat), len(lon)))
    for _ in range(40):
        ky, kx = random.normal(0, 3, 2)
        phase = random.uniform(0, 2 * np.pi, times)[:, None, None]
        fields += np.sin(ky * lat[:, None] + kx * lon + phase) / (1 + np.hypot(ky, kx))
    return 280 + fields


def pairs(tmp_path, off=(0.0, 0.0)):
    """A dry run of high fields and their means over 4 x 4 cells, whose coordinates are `off` low cells away."""
    fine_lat, fine_lon = 50 + STEP * (np.arange(64) + 0.5), 5 + STEP * (np.arange(64) + 0.5)
    fields = weather(fine_lat, fine_lon, 40)
    low = fields.reshape(40, 16, 4, 16, 4).mean((2, 4))
    lat = fine_lat.reshape(16, 4).mean(1) + off[0] * 4 * STEP
    lon = fine_lon.reshape(16, 4).mean(1) + off[1] * 4 * STEP
    for name, values, y, x in (("high.nc", fields, fine_lat, fine_lon), ("low.nc", low, lat, lon)):
        time = np.datetime64("2020-01-01", "ns") + np.arange(40) * 6 * HOUR
        xr.Dataset(
            {"t": (("time", "lat", "lon"), values.astype("f4"), {"units": "K"})},
            {"time": time, "lat": ("lat", y, {"units": "degrees_north"}), "lon": ("lon", x, {"units": "degrees_east"})},
        ).to_netcdf(tmp_path / name)
    paths = {name: [str(tmp_path / f"{name}.nc")] for name in ("high", "low")}
    return prepare_from_options(recipe=None, output=None, dry_run=True, **paths)


def test_grids_that_fit_are_not_noted(tmp_path):
    assert "matches high best" not in pairs(tmp_path)


@pytest.mark.parametrize(
    ("off", "moved"),
    [((0.5, 0.5), "-0.[45] of its rows and -0.[45]"), ((0.0, -0.5), r"-?0.[01] of its rows and 0.[456]")],
)
def test_half_a_cell_is_noted_with_where_low_belongs(tmp_path, off, moved):
    told = pairs(tmp_path, off)
    assert "t: low matches high best when it is moved by" in told
    assert re.search(f"moved by {moved} of its columns", told), told


def test_the_peak_of_a_shifted_field_is_its_shift():
    y, x = np.arange(20) * 0.4, np.arange(20) * 0.4
    truth = weather(y, x, 30)
    for rows, columns in ((0, 0), (1, -1), (0.5, 0)):
        moved = weather(y + rows * 0.4, x + columns * 0.4, 30)
        table = registration.shifts(registration.departures(moved), registration.departures(truth), np.ones((20, 20)))
        found = registration.peak(table)[:2]
        np.testing.assert_allclose(found, (-rows, -columns), atol=0.15)
        assert registration.is_displaced(table) is bool(rows or columns)


def test_points_at_corners_of_their_cells_are_noted(tmp_path):
    data = xr.Dataset(
        {"t": (("time", "lat", "lon"), np.full((2, 4, 5), 280, np.float32), {"units": "K"})},
        {
            "time": np.datetime64("2020-01-01", "ns") + np.arange(2) * HOUR,
            "lat": ("lat", np.arange(4.0), {"units": "degrees_north", "bounds": "lat_bnds"}),
            "lon": ("lon", np.arange(5.0), {"units": "degrees_east", "bounds": "lon_bnds"}),
        },
    )
    data["lat_bnds"] = (("lat", "n"), np.stack([np.arange(4.0), np.arange(1.0, 5)], 1))
    data["lon_bnds"] = (("lon", "n"), np.stack([np.arange(5.0) - 0.5, np.arange(5.0) + 0.5], 1))
    data.to_netcdf(tmp_path / "c.nc")
    (note,) = open_archive([str(tmp_path / "c.nc")]).notes
    assert "t has lat 0 of the way through its bounds, not in the middle: its points are corners of cells" in note
