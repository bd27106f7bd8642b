"""Dates in the calendar of the data: int64 seconds since its 1970-01-01, text, and the phase of the year."""

import re

import numpy as np

from dsr.errors import UserError

EPOCH = "seconds since 1970-01-01"
YEAR = {  # the CF calendars and the mean number of days in a year
    "standard": 365.2425,
    "proleptic_gregorian": 365.2425,
    "noleap": 365.0,
    "all_leap": 366.0,
    "360_day": 360.0,
}
ALIASES = {"gregorian": "standard", "365_day": "noleap", "366_day": "all_leap"}
REFORM = -12219292800  # 1582-10-15: from this day on, the standard calendar equals the proleptic Gregorian one
FORM = "is not of the form 2060-12-30 or 2060-12-30T06:00 (UTC)"
DATE = re.compile(r"((?!0000)\d{4})-(\d\d)-(\d\d)(?:[T ]([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?(?:Z|\+00:?00)?)?")


def canonical(calendar: str) -> str:
    """The CF name of a calendar, in lower case. Raises UserError for an unknown one."""
    name = ALIASES.get(calendar.lower(), calendar.lower())
    if name not in YEAR:
        raise UserError(f'unknown calendar "{calendar}"; known calendars are {", ".join([*YEAR, *ALIASES])}')
    return name


def label(seconds: int, calendar: str) -> str:
    """A date such as "2062-02-30T12:00"; seconds are shown if they are not 0."""
    seconds, calendar = int(seconds), canonical(calendar)
    if calendar == "proleptic_gregorian" or (calendar == "standard" and seconds >= REFORM):
        return str(np.datetime64(seconds, "s").astype("datetime64[s]" if seconds % 60 else "datetime64[m]"))
    import cftime

    return cftime.num2date(seconds, EPOCH, calendar).isoformat(timespec="seconds" if seconds % 60 else "minutes")


def when(frame: tuple[int, int], calendar: str) -> str:
    """An initial time and a lead time, both in seconds, as text such as "2018-05-01T00:00 +6 h"."""
    init, lead = frame
    return label(init, calendar) + (f" +{lead / 3600:g} h" if lead else "")


def check_form(text: str) -> str:
    """The text unchanged, if it has the form of a date (in any calendar); otherwise raises ValueError."""
    if not DATE.fullmatch(text):
        raise ValueError(f'"{text}" {FORM}')
    return text


def parse(text: str, calendar: str, *, end: bool = False) -> int:
    """Seconds of a date such as "2060-12-30" or "2060-12-30T06:00". With `end`, a bare date means its last second.

    Raises UserError if the text is not a date, or the calendar does not have that date.
    """
    match, calendar = DATE.fullmatch(text), canonical(calendar)
    if not match:
        raise UserError(f'"{text}" {FORM}')
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
    midnight = _midnight(year, month, day, calendar)
    if midnight is None:
        month = min(max(month, 1), 12)
        days = (d for d in (*range(day, 0, -1), 1) if _midnight(year, month, d, calendar) is not None)
        nearest = f"; {year:04}-{month:02}-{near:02} does" if (near := next(days, None)) else ""
        raise UserError(f"{match[1]}-{match[2]}-{match[3]} does not exist in the {calendar} calendar{nearest}")
    whole_day = 86399 if end and match[4] is None else 0
    return midnight + 3600 * hour + 60 * minute + second + whole_day


def year_angle(seconds: np.ndarray, calendar: str) -> np.ndarray:
    """The phase of each time in the year of the calendar: int64 seconds -> float64 radians, 0 near 1 January."""
    days = YEAR[canonical(calendar)]
    return 2 * np.pi * (seconds / 86400.0 % days) / days


def _midnight(year: int, month: int, day: int, calendar: str) -> int | None:
    """The start of a day in seconds, or None if the calendar has no such day."""
    try:
        if calendar == "proleptic_gregorian" or (calendar == "standard" and year > 1582):
            return int(np.datetime64(f"{year:04}-{month:02}-{day:02}", "s").astype(np.int64))
        import cftime

        return int(cftime.date2num(cftime.datetime(year, month, day, calendar=calendar), EPOCH, calendar))
    except ValueError:
        return None
