"""GRIB messages for tests, by eccodes' own keys."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SCANNING = ("iScansNegatively", "jScansPositively", "jPointsAreConsecutive", "alternativeRowScanning")
SHAPE = (4, 6)


def write(path: Path, messages: Sequence[dict[str, Any]]) -> Path:
    """One file of messages. Each is keys of eccodes in the order in which they are set, and "values" of any shape.

    "sample" is the message to start from, "before" bytes that stand before the message, NaN a missing value.
    """
    with path.open("wb") as file:
        for keys in messages:
            file.write(keys.get("before", b"") + encoded(**{k: v for k, v in keys.items() if k != "before"}))
    return path


def encoded(sample: str | bytes = "regular_ll_sfc_grib2", values: Any = None, **keys: Any) -> bytes:
    """One message, made from one of eccodes' samples or from another message."""
    import eccodes

    start = eccodes.codes_grib_new_from_samples if isinstance(sample, str) else eccodes.codes_new_from_message
    message = start(sample)
    for key, value in keys.items():
        eccodes.codes_set(message, key, value)
    if values is not None:
        values = np.ravel(np.asarray(values, np.float64))
        if np.isnan(values).any():
            eccodes.codes_set(message, "bitmapPresent", 1)
            eccodes.codes_set(message, "missingValue", 1e20)
            values = np.where(np.isnan(values), 1e20, values)
        eccodes.codes_set_values(message, values)
    data = eccodes.codes_get_message(message)
    eccodes.codes_release(message)
    return data


def latlon(shape: tuple[int, int] = SHAPE, north: float = 58.0, west: float = -10.0, step: float = 0.25) -> dict:
    """The keys of a grid of latitudes and longitudes, from its north-western corner on."""
    south, east = north - step * (shape[0] - 1), west + step * (shape[1] - 1)
    return {
        "gridType": "regular_ll",
        "Ni": shape[1],
        "Nj": shape[0],
        "latitudeOfFirstGridPointInDegrees": north,
        "longitudeOfFirstGridPointInDegrees": west % 360,
        "latitudeOfLastGridPointInDegrees": south,
        "longitudeOfLastGridPointInDegrees": east % 360,
        "iDirectionIncrementInDegrees": step,
        "jDirectionIncrementInDegrees": step,
    }


def scanning(mode: int) -> dict[str, int]:
    """The four flags of a scanning mode, such as 64: rows run to the east and follow each other to the north."""
    flags = SCANNING if mode & 16 else SCANNING[:3]  # edition 1 has no alternating rows
    return {key: mode >> 7 - bit & 1 for bit, key in enumerate(flags)}


def points(path: Path) -> Iterator[np.ndarray]:
    """(point, 3) for each message: latitude, longitude (-180 to 180) and value, as eccodes itself places them."""
    import eccodes

    with path.open("rb") as file:
        while (message := eccodes.codes_grib_new_from_file(file)) is not None:
            listed = eccodes.codes_grib_get_data(message)
            eccodes.codes_release(message)
            yield np.array([(p["lat"], (p["lon"] + 180) % 360 - 180, p["value"]) for p in listed])
