"""Small archives for tests, written as real NetCDF, Zarr and GRIB files."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

START = np.datetime64("2020-01-01T00:00", "ns")
HOUR = np.timedelta64(1, "h").astype("timedelta64[ns]")


def analysis(
    times: int = 60, shape: tuple[int, int] = (8, 12), *, step: float = 0.25, north: float = 58.0
) -> xr.Dataset:
    """Hourly fields t2m(time, latitude, longitude) in K that tell time and place apart."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    time = START + np.arange(times) * HOUR
    values = 280 + np.sin(np.arange(times))[:, None, None] + 0.1 * rows + 0.01 * columns**2
    return xr.Dataset(
        {
            "t2m": (
                ("time", "latitude", "longitude"),
                values.astype("f4"),
                {"units": "K", "standard_name": "air_temperature"},
            )
        },
        {
            "time": ("time", time, {"standard_name": "time"}),
            "latitude": ("latitude", north - step * np.arange(shape[0]), {"units": "degrees_north"}),
            "longitude": ("longitude", -10 + step * np.arange(shape[1]), {"units": "degrees_east"}),
        },
    )


def forecasts(
    runs: int = 4,
    leads: tuple[int, ...] = (1, 2, 3),
    shape: tuple[int, int] = (8, 12),
    every: int = 24,
    step: float = 0.25,
) -> xr.Dataset:
    """Runs `every` so many hours, t2m(init_time, lead_time, lat, lon) = 280 + run + lead / 10, and a total tp in m."""
    run, lead = np.arange(runs)[:, None, None, None], np.array(leads)[None, :, None, None]
    ones = np.ones((1, 1, *shape))
    return xr.Dataset(
        {
            "t2m": (
                ("init_time", "lead_time", "lat", "lon"),
                ((280 + run + lead / 10) * ones).astype("f4"),
                {"units": "K"},
            ),
            "tp": (
                ("init_time", "lead_time", "lat", "lon"),
                (0.001 * lead**2 * (run * 0 + ones)).astype("f4"),
                {"units": "m"},
            ),
        },
        {
            "init_time": START + np.arange(runs) * every * HOUR,
            "lead_time": ("lead_time", np.array(leads), {"units": "hours", "standard_name": "forecast_period"}),
            "lat": 58 - step * np.arange(shape[0]),
            "lon": -10 + step * np.arange(shape[1]),
        },
    )


def write_grib(path: Path, messages: list[dict[str, Any]], shape: tuple[int, int] = (4, 6)) -> Path:
    """A GRIB 2 file of small regular grids. A message is eccodes keys plus "value", which fills the field."""
    import eccodes

    with path.open("wb") as file:
        for keys in messages:
            message = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
            grid = {
                "Nj": shape[0],
                "Ni": shape[1],
                "latitudeOfFirstGridPointInDegrees": 58.0,
                "latitudeOfLastGridPointInDegrees": 58.0 - 0.25 * (shape[0] - 1),
                "longitudeOfFirstGridPointInDegrees": 350.0,
                "longitudeOfLastGridPointInDegrees": 350.0 + 0.25 * (shape[1] - 1),
                "iDirectionIncrementInDegrees": 0.25,
                "jDirectionIncrementInDegrees": 0.25,
                "bitsPerValue": 24,
                "dataDate": 20200101,
            }
            for key, value in (grid | {k: v for k, v in keys.items() if k != "value"}).items():
                eccodes.codes_set(message, key, value)
            field = keys["value"] + 1e-3 * np.arange(shape[0] * shape[1])
            eccodes.codes_set_values(message, field.astype(np.float64))
            eccodes.codes_write(message, file)
            eccodes.codes_release(message)
    return path
