"""Units of measurement: CF and GRIB spellings, and linear conversion between them."""

import re
from functools import cache
from typing import Any

from dsr.errors import UserError

CELSIUS = re.compile(r"\bdeg(ree)?s? +c(elsius)?\b", re.IGNORECASE)  # parsed as it is, an angle times Celsius
WATER_EQUIVALENT = re.compile(r"\s+(of water equivalent|of water|w\.?e\.?)$")
WATER = 1000.0  # kg m-3: a metre of liquid water on a square metre


def tidy(units: str) -> str:
    """A unit in CF spelling: "m**2 s**-2" -> "m2 s-2"; "" if unknown."""
    spellings = {
        "Kelvin": "K",
        "mb": "hPa",
        "(0 - 1)": "1",
        "0-1": "1",
        "Degree true": "degree",
        "unknown": "",
        "~": "",
        "percent": "%",
    }
    units = CELSIUS.sub("degC", WATER_EQUIVALENT.sub("", units.strip()))
    return spellings.get(units, units.replace("**", ""))


def conversion(source: str, target: str, where: str) -> tuple[float, float]:
    """(scale, offset) such that value * scale + offset is in `target`; metres of water become kg m-2.

    Raises UserError, which names `where`, if the units are incompatible.
    """
    if tidy(source) == tidy(target):
        return 1.0, 0.0
    try:
        registry = _registry()
        with registry.context("water"):
            zero, one = (
                registry.Quantity(value, registry.Unit(tidy(source))).to(registry.Unit(tidy(target))).magnitude
                for value in (0.0, 1.0)
            )
    except Exception as error:
        raise UserError(f'{where}: "{source}" cannot be converted to "{target}"') from error
    return float(one - zero), float(zero)


@cache
def _registry() -> Any:
    import pint
    from cf_xarray.units import units as registry

    water: Any = pint.Context("water")
    for depth in ("[length]", "[length] / [time]"):
        amount = f"[mass] / [length] ** 3 * {depth}"
        water.add_transformation(depth, amount, lambda r, value: value * r.Quantity(WATER, "kg / m ** 3"))
        water.add_transformation(amount, depth, lambda r, value: value / r.Quantity(WATER, "kg / m ** 3"))
    registry.add_context(water)
    return registry
