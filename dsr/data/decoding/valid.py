"""The valid range of a variable, in its unpacked units: CF's valid_range, and NetCDF's default fill values."""

from typing import Any

import numpy as np

FILLS = {"i2": -32767, "i4": -2147483647, "u2": 65535, "u4": 4294967295}  # NetCDF's defaults for values never written


def valid_range(array: Any) -> tuple[float, float]:
    """(lowest, highest) of an unpacked xarray variable; CF treats values outside as missing."""
    attributes, packing = array.attrs, array.encoding
    dtype = np.dtype(packing.get("dtype", array.dtype))
    scale, offset = (float(packing.get(key, default)) for key, default in (("scale_factor", 1), ("add_offset", 0)))
    given = attributes.get("valid_range", (attributes.get("valid_min", -np.inf), attributes.get("valid_max", np.inf)))
    try:
        limits = np.array([float(value) for value in given])
    except (TypeError, ValueError):
        limits = np.array([-np.inf, np.inf])
    if dtype.kind in "iu" and np.isinf(limits).all() and not {"_FillValue", "missing_value"} & packing.keys():
        fill = FILLS.get(dtype.str[1:], -np.inf)
        limits = np.array([fill + 1, np.inf] if fill < 0 else [-np.inf, fill - 1])
        as_packed = True
    else:  # limits of a wider type than the packed values refer to unpacked values
        kinds = {np.asarray(attributes[key]).dtype.kind for key in attributes if key.startswith("valid_")}
        as_packed = dtype.kind in "iu" and not kinds & {"f"}
    if as_packed:
        if str(packing.get("_Unsigned", attributes.get("_Unsigned"))).lower() == "true":
            limits = np.where(limits < 0, limits + 2.0 ** (8 * dtype.itemsize), limits)
        limits = np.sort(limits * scale + offset)
    lowest, highest = limits if len(limits) == 2 and limits[0] < limits[1] else (-np.inf, np.inf)
    slack = abs(scale) / 2 if "scale_factor" in packing else 0.0
    return float(lowest - slack), float(highest + slack)
