"""Times as files write them: exact, snapped to their step, or refused."""

import cftime
import numpy as np
import pytest
import xarray as xr

from dsr.data.decoding.time import durations, points
from dsr.errors import UserError

HOURS = np.arange(240)
START = int(np.datetime64("2023-11-16", "s").astype(np.int64))


def decoded(values, **attributes):
    return points(xr.Variable("time", values), attributes)


def days_since(year):
    return (np.datetime64("2023-11-16") - np.datetime64(year, "D")).astype(int)


@pytest.mark.parametrize(
    ("values", "units"),
    [
        (HOURS.astype("i4"), "hours since 2023-11-16"),
        (days_since("1950-01-01") + HOURS / 24, "days since 1950-01-01"),
        (np.float32(days_since("1950-01-01") + HOURS / 24), "days since 1950-01-01 00:00:00.0"),  # to 2.8 minutes
        (np.float32(days_since("1900-01-01") + HOURS / 24), "days since 1900-01-01"),  # to 5.6 minutes
        (np.round(days_since("1950-01-01") + HOURS / 24, 6), "days since 1950-01-01"),  # six decimals, as GrADS writes
        (np.int64(START) * 1000 + HOURS * 3_600_000, "milliseconds since 1970-01-01"),
        ((START + HOURS * 3600).astype("M8[s]").astype("M8[ns]"), ""),
        (HOURS / 24, "days since 2023-11-16T00:00:00Z"),
    ],
)
def test_the_same_hours_however_they_are_written(values, units):
    seconds, calendar = decoded(values, units=units)
    np.testing.assert_array_equal(seconds, START + HOURS * 3600)
    assert calendar == "proleptic_gregorian" and seconds.dtype == np.int64


def test_days_since_the_year_one_are_those_of_the_mixed_calendar():
    values = np.array([738840.0, 738840.5])
    expected = cftime.num2date(values, "days since 1-1-1 00:00:0.0", "standard")
    seconds, _ = decoded(values, units="days since 1-1-1 00:00:0.0")
    assert [str(np.datetime64(int(s), "s"))[:16] for s in seconds] == [d.strftime("%Y-%m-%dT%H:%M") for d in expected]


def test_a_type_that_does_not_resolve_the_step_is_refused():
    minutes = np.float32(days_since("1900-01-01") + np.arange(100) * 5 / 1440)
    with pytest.raises(UserError, match=r"float32, which resolves 5.62 minutes here, while its step is 5.62 minutes"):
        decoded(minutes, units="days since 1900-01-01")


@pytest.mark.parametrize(("calendar", "year"), [("noleap", 365), ("360_day", 360), ("all_leap", 366)])
def test_model_calendars_count_their_own_days(calendar, year):
    seconds, kept = decoded(np.arange(0, 3 * year, year), units="days since 1971-01-01", calendar=calendar)
    assert kept == calendar and (np.diff(seconds) == year * 86400).all() and seconds[0] == year * 86400


@pytest.mark.parametrize(
    ("values", "attributes", "message"),
    [
        (HOURS, {}, "has no units such as"),
        (HOURS, {"units": "months since 1850-01-01"}, "whose length varies"),
        (
            HOURS,
            {"units": "days since 1850-01-01", "calendar": "martian"},
            'unknown calendar "martian"; known calendars are standard',
        ),
        (np.array([0.0, np.nan]), {"units": "days since 1850-01-01"}, "missing times"),
        (np.array(["2020-01-01", "NaT"], "M8[s]"), {}, "missing times"),
    ],
)
def test_what_cannot_be_known_is_refused(values, attributes, message):
    with pytest.raises(UserError, match=message):
        decoded(values, **attributes)


def test_leads_in_any_unit():
    for values, units in (([0, 6], "hours"), ([0, 0.25], "days"), ([0, 21600], "seconds"), ([0, 360], "minutes")):
        np.testing.assert_array_equal(durations(xr.Variable("step", np.array(values)), {"units": units}), [0, 21600])
    nanoseconds = xr.Variable("step", np.array([0, 6], "m8[h]").astype("m8[ns]"))
    np.testing.assert_array_equal(durations(nanoseconds, {}), [0, 21600])
