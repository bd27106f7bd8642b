"""Low and high belong together where their times and their intervals are the same; otherwise it is said why not."""

import numpy as np
import pytest
import xarray as xr

from dsr.data.archive import open_archive
from dsr.data.choice import Choice
from dsr.data.joined import Joined
from dsr.data.pairing import doubts, intervals, pair
from dsr.errors import UserError

DAY = np.timedelta64(1, "D")


def daily(
    path, name, *, stamp=0, cell=(0, 24), step=0.5, values=1.0, units="kg m-2", methods="time: sum", days=20, **more
):
    """Daily fields on 8 x 8 points, stamped at an hour, with bounds `cell` in hours of the day."""
    day = np.datetime64("2001-01-01", "ns") + np.arange(days) * DAY
    hours = [day + np.timedelta64(h, "h") for h in cell]
    data = np.full((days, 8, 8), values, np.float32) + np.arange(days, dtype=np.float32)[:, None, None]
    dataset = xr.Dataset(
        {name: (("time", "lat", "lon"), data, {"units": units, "cell_methods": methods})},
        {
            "time": ("time", day + np.timedelta64(stamp, "h"), {"bounds": "time_bnds"}),
            "time_bnds": (("time", "bnds"), np.stack(hours, 1)),
            "lat": ("lat", 50 - step * np.arange(8), {"units": "degrees_north"}),
            "lon": ("lon", 5 + step * np.arange(8), {"units": "degrees_east"}),
        },
    )
    dataset["time"].encoding = {"units": "hours since 2001-01-01"}
    dataset["time_bnds"].encoding = {"units": "hours since 2001-01-01"}
    dataset.to_netcdf(path)
    return str(path)


def test_a_mean_rate_becomes_an_amount_over_its_own_interval(tmp_path):
    rate = daily(tmp_path / "rate.nc", "pr", units="kg m-2 s-1", methods="time: mean", values=0.0)
    with xr.open_dataset(rate) as dataset:
        (dataset.load() / 86400).assign(pr=(dataset["pr"] / 86400).assign_attrs(dataset["pr"].attrs)).to_netcdf(
            tmp_path / "r.nc"
        )
    high = open_archive([daily(tmp_path / "amount.nc", "pr")])
    low = open_archive([str(tmp_path / "r.nc")])
    low.convert("pr", "kg m-2")
    assert [v.cell_methods for v in low.variables] == ["time: sum"]
    assert low.variables[0].standard_name == high.variables[0].standard_name
    for day in (0, 7):
        np.testing.assert_allclose(low.read(day)[0], day, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(high.read(day)[0], 1 + day)
    assert intervals(low) == {"pr": [[0, 24]]}
    assert not list(doubts(low, high))


def test_a_rate_at_an_instant_is_no_amount(tmp_path):
    low = open_archive([daily(tmp_path / "r.nc", "pr", units="kg m-2 s-1", methods="time: point")])
    with pytest.raises(UserError, match=r"kg m-2 s-1.* at an instant, which cannot become .*kg m-2.* over an interval"):
        low.convert("pr", "kg m-2")


def test_days_that_begin_at_different_hours_are_no_pair(tmp_path):
    low = open_archive([daily(tmp_path / "low.nc", "pr", step=1.0)])
    high = open_archive([daily(tmp_path / "high.nc", "pr", cell=(-18, 6))])
    with pytest.raises(UserError, match=r"can be paired with the high one.*covers intervals that begin 18 h apart"):
        pair(low, high, None)


def test_stamps_at_different_hours_name_the_offset_that_mends_it(tmp_path):
    low, high = daily(tmp_path / "low.nc", "pr", step=1.0), daily(tmp_path / "high.nc", "pr", stamp=12)
    with pytest.raises(UserError, match=r'both are daily, stamped at 0 and at 12 h: give "offset_hours" in a recipe'):
        pair(open_archive([low]), open_archive([high]), None)
    # moved by twelve hours the stamps meet, and the bounds, which move with them, say that the days are not the same
    moved = open_archive([low], offset_hours=12)
    with pytest.raises(UserError, match="begin 12 h apart"):
        pair(moved, open_archive([high]), None)


def test_nothing_in_common_and_other_statistics_are_said(tmp_path):
    low = open_archive([daily(tmp_path / "low.nc", "tas", units="K", methods="time: mean", values=280)])
    high = open_archive([daily(tmp_path / "high.nc", "tg", units="K", methods="time: mean", values=280)])
    (line,) = doubts(low, high)
    assert "low has tas, high has tg: no variable in common" in line and "rename one in a recipe" in line
    highest = {"tas": Choice(source="tx")}
    tx = daily(tmp_path / "tx.nc", "tx", units="K", methods="time: maximum", values=280)
    assert list(doubts(low, open_archive([tx], highest))) == [
        "tas is a mean in the low archive and a maximum in the high one"
    ]


def test_archives_on_two_grids_are_brought_onto_the_first(tmp_path):
    first = open_archive([daily(tmp_path / "a.nc", "pr")])
    second = open_archive(
        [daily(tmp_path / "b.nc", "tas", units="K", methods="time: mean", values=280, step=1.0, days=15)]
    )
    joined = Joined([first, second])
    assert [v.name for v in joined.variables] == ["pr", "tas"] and len(joined.frames) == 15
    assert joined.grid is first.grid and joined.read(3).shape == (2, 8, 8)
    np.testing.assert_allclose(joined.read(3)[1], 283)
    assert any("is interpolated bilinearly onto the grid of" in note for note in joined.notes)
    assert list(joined.dropped) == [f"only {first.name} has it"]
    with pytest.raises(UserError, match="pr is in more than one"):
        Joined([first, first])
