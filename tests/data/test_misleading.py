"""Files that hold times twice, odd units, nameless members or empty intervals: right, refused or noted."""

import numpy as np
import pytest
import xarray as xr

from dsr.data.archive import open_archive
from dsr.data.choice import Choice
from dsr.errors import UserError

from .archives import analysis, forecasts

pytestmark = pytest.mark.filterwarnings("ignore")


def saved(dataset, path):
    dataset.to_netcdf(path)
    return str(path)


@pytest.mark.parametrize("late", [False, True])
def test_a_time_that_one_file_holds_twice_is_taken_once_and_noted(tmp_path, late):
    truth = analysis(5)[["t2m"]]
    rows = [0, 1, 1, 2, 3, 3] if late else [0, 1, 1, 2, 3, 4]
    twice = truth.isel(time=rows)
    twice["t2m"] = twice["t2m"].copy(
        data=twice["t2m"].values + np.where(np.arange(6) == (5 if late else 2), 1, 0)[:, None, None]
    )
    archive = open_archive([saved(twice, tmp_path / "a.nc")])
    assert len(archive.frames) == (4 if late else 5)
    np.testing.assert_array_equal([archive.read(i)[0] for i in range(4)], truth["t2m"].values[:4])
    (reason,) = archive.dropped
    assert "occurs more than once with different values" in reason


@pytest.mark.parametrize("units", ["degC", "deg C", "degrees C", "Degrees Celsius", "celsius"])
def test_celsius_however_it_is_spelt(tmp_path, units):
    truth = analysis(2)[["t2m"]]
    celsius = truth - 273.15
    celsius["t2m"].attrs = {"units": units}
    archive = open_archive([saved(celsius, tmp_path / "c.nc")], {"t2m": Choice(units="K", standard_name="depth")})
    np.testing.assert_allclose(archive.read(1)[0], truth["t2m"].values[1], atol=1e-3)


def test_metres_of_water_equivalent_are_metres(tmp_path):
    rain = forecasts(2)[["tp"]]
    rain["tp"].attrs["units"] = "m of water equivalent"
    archive = open_archive([saved(rain, tmp_path / "s.nc")], {"tp": Choice(units="kg m-2", accumulated=True)})
    np.testing.assert_allclose(archive.read(1), 4 - 1, rtol=1e-6)


def test_energy_whose_interval_nobody_tells_is_noted(tmp_path):
    sun = analysis(2)[["t2m"]].rename(t2m="ssrd")
    sun["ssrd"].attrs = {"units": "J m**-2"}
    (note,) = open_archive([saved(sun, tmp_path / "s.nc")]).notes
    assert "no file gives the interval" in note


def test_a_fill_value_of_0_is_noted(tmp_path):
    path = tmp_path / "z.nc"
    analysis(2)[["t2m"]].to_netcdf(path, encoding={"t2m": {"_FillValue": 0.0}})
    assert "every 0 is treated as missing" in open_archive([str(path)]).notes[0]


def test_members_without_a_number_or_with_the_same_are_refused(tmp_path):
    truth = analysis(2)[["t2m"]]
    members = xr.concat([truth, truth + 1, truth + 2], xr.DataArray([1, 2, 3], dims="number", name="number"))
    files = [saved(members, tmp_path / "m.nc"), saved(truth, tmp_path / "c.nc")]
    with pytest.raises(UserError, match=r"has no member number, but .*m.nc holds members"):
        open_archive(files)
    with pytest.raises(UserError, match="holds a member more than once: 1, 1, 3"):
        open_archive([saved(members.assign_coords(number=[1, 1, 3]), tmp_path / "d.nc")])


def test_members_named_along_a_dimension_of_another_name(tmp_path):
    truth = analysis(2)[["t2m"]]
    members = xr.concat([truth, truth + 1], "run").assign_coords(realization=("run", ["m01", "m02"]))
    archive = open_archive([saved(members, tmp_path / "m.nc")])
    assert archive.members == ["m01", "m02"]
    np.testing.assert_array_equal(archive.read(0)[1, 0], members["t2m"].values[1, 0])


def test_bounds_of_a_falling_axis_and_bounds_that_hold_nothing(tmp_path):
    rain = analysis(3)[["t2m"]].rename(t2m="pr").isel(time=slice(None, None, -1))
    rain["pr"].attrs = {"units": "kg m-2", "cell_methods": "time: sum"}
    rain["time"].attrs["bounds"] = "time_bnds"
    hour = np.timedelta64(1, "h")
    for start, message in ((rain["time"].values - hour, None), (rain["time"].values, "no sum over an interval")):
        rain["time_bnds"] = (("time", "nv"), np.stack([rain["time"].values, start], 1))
        path = saved(rain, tmp_path / f"{message}.nc")
        if message:
            with pytest.raises(UserError, match=message):
                open_archive([path])
        else:
            archive = open_archive([path])
            assert archive.interval("pr", archive.frames[0]) == (-3600, 0)


def test_a_maximum_since_the_start_of_a_run_is_none_over_hours(tmp_path):
    data = forecasts(2, tuple(range(1, 7)))[["t2m"]]
    data["t2m"].attrs["cell_methods"] = "time: maximum"
    draws = np.random.default_rng(0).normal(280, 3, data["t2m"].shape).astype(np.float32)
    lead = data["t2m"].dims.index("lead_time")
    of_the_hour = data.assign(t2m=data["t2m"].copy(data=draws))
    since_start = data.assign(t2m=data["t2m"].copy(data=np.maximum.accumulate(draws, axis=lead)))
    archive = open_archive([saved(of_the_hour, tmp_path / "hour.nc")], {"t2m": Choice(hours=1)})
    assert not archive.notes and np.isin(archive.read(3)[0], draws).all()
    with pytest.raises(UserError, match="a maximum over 1 h: it never falls"):
        open_archive([saved(since_start, tmp_path / "start.nc")], {"t2m": Choice(hours=1)})
