"""Dates of every calendar of CF, by hand and by cftime; the phase of a year in its own calendar."""

import json
import subprocess
import sys

import cftime
import numpy as np
import pytest
import xarray as xr

from dsr.data import open as open_store
from dsr.data.calendar import ALIASES, EPOCH, YEAR, canonical, label, parse, when, year_angle
from dsr.data.info import describe
from dsr.data.output import export_forecast
from dsr.data.prepare import prepare_from_options
from dsr.data.store import Store
from dsr.errors import UserError

from .archives import analysis

DAY = 86400


@pytest.mark.parametrize(
    ("text", "calendar", "seconds"),
    [
        ("1970-01-01", "360_day", 0),
        ("1971-01-01", "360_day", 360 * DAY),
        ("2062-02-30T12:00", "360_day", (92 * 360 + 59) * DAY + 43200),
        ("2060-03-01", "noleap", (90 * 365 + 59) * DAY),
        ("2061-02-29T06:30:15", "all_leap", (91 * 366 + 59) * DAY + 6 * 3600 + 30 * 60 + 15),
        ("2019-03-01T00:00", "proleptic_gregorian", 1551398400),
        ("1969-12-31T23:00", "standard", -3600),
    ],
)
def test_dates_by_hand(text, calendar, seconds):
    assert parse(text, calendar) == seconds
    assert label(seconds, calendar) == (text if "T" in text else f"{text}T00:00")


def test_the_reform_of_1582():
    """In the standard calendar 15 October 1582 follows the 4th; the proleptic Gregorian one has no such gap."""
    before = parse("1582-10-04", "standard")
    assert parse("1582-10-15", "standard") - before == DAY
    assert label(before, "standard") == "1582-10-04T00:00" and label(before + DAY, "standard") == "1582-10-15T00:00"
    assert label(before, "proleptic_gregorian") == "1582-10-14T00:00"
    with pytest.raises(UserError, match="1582-10-10 does not exist in the standard calendar; 1582-10-04 does"):
        parse("1582-10-10", "standard")


@pytest.mark.parametrize("calendar", [*YEAR, *ALIASES])
def test_cftime_agrees_over_a_thousand_years(calendar):
    for seconds in np.random.default_rng(0).integers(-600 * 365 * DAY, 400 * 365 * DAY, 60).tolist():
        date = cftime.num2date(seconds, EPOCH, calendar)
        told = label(seconds, calendar)
        assert told == date.isoformat(timespec="seconds" if seconds % 60 else "minutes")
        assert parse(told, calendar) == seconds


@pytest.mark.parametrize(
    ("text", "calendar", "message"),
    [
        ("2060-02-29", "noleap", "2060-02-29 does not exist in the noleap calendar; 2060-02-28 does"),
        ("2060-02-29", "365_day", "2060-02-29 does not exist in the noleap calendar; 2060-02-28 does"),
        ("2060-12-31", "360_day", "2060-12-31 does not exist in the 360_day calendar; 2060-12-30 does"),
        ("2060-02-30T06:00", "standard", "2060-02-30 does not exist in the standard calendar; 2060-02-29 does"),
        ("2060-13-01", "noleap", "2060-13-01 does not exist in the noleap calendar; 2060-12-01 does"),
        ("2060-2-1", "noleap", '"2060-2-1" is not of the form 2060-12-30 or 2060-12-30T06:00'),
        ("2060-02-01T24:00", "noleap", "is not of the form"),
        ("2060-02-01T00:00+02:00", "noleap", "is not of the form"),
        ("2060-02-01", "utc", 'unknown calendar "utc"; known calendars are standard, .*360_day'),
    ],
)
def test_what_is_no_date_is_refused_with_a_right_one_beside_it(text, calendar, message):
    with pytest.raises(UserError, match=message):
        parse(text, calendar)


def test_a_date_that_ends_a_range_is_its_whole_day():
    start = parse("2060-12-30", "360_day")
    assert parse("2060-12-30", "360_day", end=True) == start + DAY - 1
    assert parse("2060-12-30T06:00", "360_day", end=True) == start + 6 * 3600
    assert parse("2060-12-30T06:00Z", "360_day") == parse("2060-12-30T06:00+00:00", "360_day") == start + 6 * 3600


def test_a_frame_for_people():
    init = parse("2060-02-30", "360_day")
    assert when((init, 6 * 3600), "360_day") == "2060-02-30T00:00 +6 h"
    assert when((init, 0), "360_day") == "2060-02-30T00:00"
    assert canonical("GREGORIAN") == "standard"


@pytest.mark.parametrize("calendar", ["noleap", "365_day", "all_leap", "366_day", "360_day"])
def test_the_year_turns_once_in_its_own_calendar(calendar):
    days = {"noleap": 365, "all_leap": 366, "360_day": 360}[canonical(calendar)]
    dates = [cftime.datetime(year, month, 15, 6, calendar=calendar) for year in (1850, 2063) for month in (1, 7, 12)]
    seconds = np.array([cftime.date2num(date, EPOCH, calendar) for date in dates])
    expected = [360 * (date.dayofyr - 1 + 0.25) / days for date in dates]
    np.testing.assert_allclose(np.degrees(year_angle(seconds, calendar)), expected, atol=1e-9)


def test_the_gregorian_year_keeps_its_bits():
    seconds = np.random.default_rng(1).integers(0, 2**31, 500)
    expected = 2 * np.pi * (seconds / 86400.0 % 365.2425) / 365.2425
    for calendar in ("standard", "gregorian", "proleptic_gregorian"):
        assert year_angle(seconds, calendar).tobytes() == expected.tobytes()


def test_a_360_day_archive_from_recipe_to_file(tmp_path):
    """Every third day of two years at noon: the splits hold the dates that the recipe names, in its calendar."""
    dates = [cftime.Datetime360Day(y, m, d, 12) for y in (2060, 2061) for m in range(1, 13) for d in range(3, 31, 3)]
    data = analysis(len(dates)).assign_coords(time=dates)
    data.to_netcdf(tmp_path / "a.nc", encoding={"time": {"units": "hours since 1970-01-01", "calendar": "360_day"}})
    ranges = {"train": ["2060-01-01", "2060-12-30"], "validation": ["2061-02-01", "2061-02-30"]}
    ranges["test"] = ["2061-03-01", "2061-12-30T00:00"]
    recipe = {"high": {"files": ["a.nc"]}, "factor": 4, "splits": {"by": "time", **ranges}}

    def prepared(output, splits=ranges):
        text = json.dumps({**recipe, "splits": {**recipe["splits"], **splits}})
        (tmp_path / "r.json").write_text(text)
        return prepare_from_options(recipe=tmp_path / "r.json", output=output)

    with pytest.raises(
        UserError, match=r"splits.train: 2060-12-31 does not exist in the 360_day calendar; 2060-12-30 does"
    ):
        prepared(tmp_path / "store", {"train": ["2060-01-01", "2060-12-31"]})
    assert not (tmp_path / "store").exists()
    prepared(tmp_path / "store")
    store = Store(tmp_path / "store")
    assert store.calendar == "360_day"
    low = open_store(tmp_path / "store")["low"]
    ends = [low.time.values[store.samples(name)][[0, -1]].tolist() for name in ("train", "validation", "test")]
    assert ends == [
        [dates[0], cftime.Datetime360Day(2060, 12, 30, 12)],
        [cftime.Datetime360Day(2061, 2, 3, 12), cftime.Datetime360Day(2061, 2, 30, 12)],
        [cftime.Datetime360Day(2061, 3, 3, 12), cftime.Datetime360Day(2061, 12, 27, 12)],
    ]
    told = describe(tmp_path / "store")
    assert "240 truths, 2060-01-03T12:00 to 2061-12-30T12:00 in the 360_day calendar" in told
    assert "validation 10 samples, 2061-02-03T12:00 to 2061-02-30T12:00" in told
    export_forecast(store, "test", tmp_path / "f.nc")
    with xr.open_dataset(tmp_path / "f.nc") as forecast:
        assert forecast["time"].values.tolist() == [cftime.Datetime360Day(2061, 3, 3, 12)]


def test_ordinary_dates_do_not_cost_cftime():
    code = (
        "import sys; from dsr.data.calendar import label, parse; "
        "label(parse('2019-03-01', 'standard'), 'proleptic_gregorian'); "
        "print([m for m in ('cftime', 'torch', 'xarray') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
