"""Physical limits: values that no field on the earth can have reveal a wrong unit or a fill value."""

from typing import NamedTuple

import numpy as np

from dsr.data.store import Variable
from dsr.data.units import conversion
from dsr.errors import UserError


class Limit(NamedTuple):
    units: str
    lower: float
    upper: float
    rounding: float = 0.0  # values this far beyond a limit are rounding errors: clipped and counted


# By a part of the CF standard name; the first match counts. Wide: records on earth are well inside.
LIMITS = {
    "lwe_thickness_of": Limit("m", 0, 5, 1e-6),
    "precipitation_amount": Limit("kg m-2", 0, 5000, 1e-3),
    "rainfall_amount": Limit("kg m-2", 0, 5000, 1e-3),
    "snowfall_amount": Limit("kg m-2", 0, 5000, 1e-3),
    "precipitation_flux": Limit("kg m-2 s-1", 0, 1, 1e-8),
    "rainfall_flux": Limit("kg m-2 s-1", 0, 1, 1e-8),
    "precipitation_rate": Limit("m s-1", 0, 1e-3, 1e-11),
    "air_temperature": Limit("K", 150, 350),
    "dew_point_temperature": Limit("K", 130, 330),
    "surface_temperature": Limit("K", 150, 370),
    "air_pressure_at_mean_sea_level": Limit("Pa", 8.0e4, 1.15e5),
    "surface_air_pressure": Limit("Pa", 3.0e4, 1.15e5),
    "relative_humidity": Limit("1", 0, 2, 1e-3),
    "specific_humidity": Limit("kg kg-1", 0, 0.1, 1e-5),
    "wind_speed": Limit("m s-1", 0, 200, 1e-3),
    "eastward_wind": Limit("m s-1", -200, 200),
    "northward_wind": Limit("m s-1", -200, 200),
    "x_wind": Limit("m s-1", -200, 200),
    "y_wind": Limit("m s-1", -200, 200),
    "area_fraction": Limit("1", 0, 1, 1e-3),
    "surface_altitude": Limit("m", -500, 9000),
}
EXCEPT = ("anomaly", "tendency", "difference")


def limit(variable: Variable) -> Limit | None:
    """The limits of a variable in its units; None if there are none, or its units have another dimension."""
    if any(word in variable.standard_name for word in EXCEPT):
        return None
    match = next((limit for part, limit in LIMITS.items() if part in variable.standard_name), None)
    if match is None:
        return None
    try:
        scale, offset = conversion(match.units, variable.units, variable.name)
    except UserError:
        return None
    return Limit(variable.units, match.lower * scale + offset, match.upper * scale + offset, match.rounding * scale)


Window = tuple[slice, slice]  # rows and columns
EVERYWHERE: Window = (slice(None), slice(None))


def within(
    values: np.ndarray, limit: Limit, rounding: float, clip: bool, where: str, window: Window = EVERYWHERE
) -> tuple[np.ndarray, int]:
    """The values within the limits, and how many were clipped: rounding errors, or with `clip` all outside.

    `rounding` is that of the file's packing, in the limit's units; only the `window` of the last two axes is checked.
    Raises UserError, starting with `where`, for impossible values.
    """
    checked = values[..., *window]
    with np.errstate(invalid="ignore"):
        outside = (checked < limit.lower) | (checked > limit.upper)
        if not outside.any():
            return values, 0
        slack = max(rounding, limit.rounding)
        bad = (checked < limit.lower - slack) | (checked > limit.upper + slack)
    if bad.any() and not clip:
        worst = checked[bad][np.abs(checked[bad] - np.clip(checked[bad], limit.lower, limit.upper)).argmax()]
        raise UserError(
            f"{where}: {int(bad.sum()):,} of {checked.size:,} values are outside {limit.lower:g} to {limit.upper:g} "
            f'{limit.units}, such as {worst:g}; set "missing", "clip" or "source_units" in a recipe'
        )
    values = values.copy()
    values[..., *window] = np.clip(checked, limit.lower, limit.upper)
    return values, int(outside.sum())
