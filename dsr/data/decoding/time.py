"""Times as files write them -> int64 seconds since 1970-01-01 in the calendar of the data, exact or rejected."""

from typing import Any

import numpy as np

from dsr.data.calendar import EPOCH, REFORM, canonical
from dsr.data.units import conversion
from dsr.errors import UserError

STEPS = (
    86400,
    43200,
    21600,
    10800,
    7200,
    3600,
    1800,
    900,
    600,
    300,
    60,
    1,
)  # s: floating-point times are snapped to these
JULIAN = (
    -2203891200,
    4107456000,
)  # 1 March 1900 and 28 February 2100: between them its leap years are the Gregorian ones


def points(variable: Any, attributes: dict[str, Any]) -> tuple[np.ndarray, str]:
    """Times as int64 seconds since 1970-01-01, and their calendar, "proleptic_gregorian" for real dates.

    `variable` is an undecoded xarray Variable of numbers, datetime64 or cftime objects; `attributes` (of the coordinate
    or, for bounds, of the one they belong to) give units and calendar. Floating-point times are snapped to their step.
    Raises UserError if there are no units, months or years are counted, or the type does not resolve the step.
    """
    values = variable.values
    if values.dtype.kind == "M":
        _refuse_missing(values)
        return values.astype("datetime64[s]").astype(np.int64), "proleptic_gregorian"
    units = str(attributes.get("units", ""))
    if values.dtype.kind not in "iuf" or " since " not in units:
        raise UserError("has no units such as 'hours since 2000-01-01'")
    if str(attributes.get("calendar", "")).lower() == "julian":
        return _as_written(variable, attributes)
    calendar = canonical(str(attributes.get("calendar", "standard")))
    unit, start = units.split(" since ", 1)
    if unit.strip().lower().rstrip("s") in ("month", "common_year", "year"):
        raise UserError(f"counts in '{units}', whose length varies; use days, hours or seconds instead")
    seconds = conversion(unit.strip(), "s", "a time coordinate")[0]
    result = _exact(values, seconds, _start(start, calendar))
    real = calendar == "standard" and (result >= REFORM).all()
    return result, "proleptic_gregorian" if real else calendar


def _as_written(variable: Any, attributes: dict[str, Any]) -> tuple[np.ndarray, str]:
    """Times in the Julian calendar, by their dates, which are taken as Gregorian from 1900 to 2100.

    IMERG files declare this calendar and mean the Gregorian one: between these years both have the same days.
    """
    seconds, calendar = points(variable, {**attributes, "calendar": "standard"})
    start = _start(str(attributes["units"]).split(" since ", 1)[1], "standard")
    if min(start, seconds.min(initial=0)) < JULIAN[0] or seconds.max(initial=0) > JULIAN[1]:
        raise UserError("has the calendar 'julian', which is supported only from March 1900 to February 2100")
    return seconds, calendar


def durations(variable: Any, attributes: dict[str, Any]) -> np.ndarray:
    """Lead times as int64 seconds; without units they are hours. Raises UserError as `points` does."""
    values = variable.values
    if values.dtype.kind == "m":
        _refuse_missing(values)
        return values.astype("timedelta64[s]").astype(np.int64)
    if values.dtype.kind not in "iuf":
        raise UserError("is not a number of hours or seconds")
    return _exact(values, conversion(str(attributes.get("units", "hours")), "s", "a lead-time coordinate")[0], 0)


def _refuse_missing(values: np.ndarray) -> None:
    if np.isnat(values).any():
        raise UserError("holds missing times")


def _start(text: str, calendar: str) -> int:
    """The reference time of the units, in seconds since 1970-01-01 of the calendar."""
    import cftime

    moment = cftime.num2date(0, f"seconds since {text}", calendar)
    return round(cftime.date2num(moment, EPOCH, calendar))


def _exact(values: np.ndarray, seconds: float, start: int) -> np.ndarray:
    """`values` x `seconds` + `start`, whole seconds; floating-point values are snapped to their step."""
    if values.dtype.kind in "iu" and seconds >= 1 and seconds == round(seconds):
        return values.astype(np.int64) * round(seconds) + start
    exact = values.astype(np.float64) * seconds
    if not np.isfinite(exact).all():
        raise UserError("holds missing times")
    whole = np.rint(exact)
    if values.dtype.kind in "iu":
        return whole.astype(np.int64) + start
    resolution = float(np.spacing(np.abs(values).max(initial=0))) * seconds
    distinct = np.unique(whole)
    step = float(np.median(np.diff(distinct))) if len(distinct) > 1 else 0.0
    if step and resolution > step / 2:
        raise UserError(
            f"is written as {values.dtype}, which resolves {resolution / 60:.3g} minutes here, while its step is "
            f"{step / 60:.3g} minutes: write it as integers or as float64"
        )
    error = max(1.0, resolution)  # s: from rounded decimals and from the type
    for quantum in STEPS:
        snapped = np.rint((exact + start) / quantum) * quantum
        if np.abs(snapped - exact - start).max(initial=0) <= error and (quantum <= max(step, 1.0) or not step):
            return snapped.astype(np.int64)
    return whole.astype(np.int64) + start
