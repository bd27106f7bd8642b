"""Weather models in NetCDF and Zarr: MEPS (AROME) and HRRR on Lambert cones, and a grid that tells places only."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .truth import LATITUDE, LONGITUDE, PACKED, Field, Truth, degrees, files, hours_after, rain, temperature

HOUR = np.timedelta64(3600 * 10**9, "ns")
NORDIC = "+proj=lcc +lat_0=63.3 +lon_0=15 +lat_1=63.3 +lat_2=63.3 +R=6371000"
HRRR = "+proj=lcc +lat_0=38.5 +lon_0=-97.5 +lat_1=38.5 +lat_2=38.5 +R=6371229"


def meps(folder: Path, runs: int = 12, leads: int = 4) -> Truth:
    """Temperature and rain of MEPS (AROME of the Nordic countries), a file a run; rain is a total since its start, of
    which the long name alone tells."""
    y, x = (
        -15000.0 + 2500 * np.arange(16),
        -20000.0 + 2500 * np.arange(20),
    )  # the projection's centre is the point [6, 8]
    latitude, longitude = degrees(NORDIC, y, x)
    mapping = {
        **{"grid_mapping_name": "lambert_conformal_conic", "standard_parallel": [63.3, 63.3]},
        **{"longitude_of_central_meridian": 15.0, "latitude_of_projection_origin": 63.3, "earth_radius": 6371000.0},
        "proj4": "+proj=lcc +lat_0=63.3 +lon_0=15 +lat_1=63.3 +lat_2=63.3 +no_defs +R=6.371e+06",
    }
    shared = {"grid_mapping": "projection_lambert", "coordinates": "longitude latitude"}
    for run in range(runs):
        start = np.datetime64("2020-01-01", "ns") + 24 * run * HOUR
        steps = 24 * run + np.arange(leads)
        fallen = rain(latitude, longitude, steps) * (np.arange(leads) > 0)[:, None, None]
        data = xr.Dataset(
            {
                "air_temperature_2m": (
                    ("time", "height1", "y", "x"),
                    temperature(latitude, longitude, steps)[:, None].astype("f4"),
                    {"standard_name": "air_temperature", "units": "K", "cell_methods": "time: point"} | shared,
                ),
                "precipitation_amount_acc": (
                    ("time", "height0", "y", "x"),
                    fallen.cumsum(0)[:, None].astype("f4"),
                    {
                        **{"standard_name": "precipitation_amount", "units": "kg/m^2"},
                        **{"long_name": "Accumulated total precipitation"},
                        **shared,
                    },
                ),
                "forecast_reference_time": ((), start, {"standard_name": "forecast_reference_time"}),
                "projection_lambert": ((), np.int32(0), mapping),
                "latitude": (("y", "x"), latitude, LATITUDE),
                "longitude": (("y", "x"), longitude, LONGITUDE),
            },
            {
                "time": ("time", start + np.arange(leads) * HOUR, {"standard_name": "time"}),
                "height0": ("height0", np.float32([0]), {"units": "m", "positive": "up", "standard_name": "height"}),
                "height1": ("height1", np.float32([2]), {"units": "m", "positive": "up", "standard_name": "height"}),
                "x": ("x", x.astype("f4"), {"units": "m", "standard_name": "projection_x_coordinate"}),
                "y": ("y", y.astype("f4"), {"units": "m", "standard_name": "projection_y_coordinate"}),
            },
            {"Conventions": "CF-1.6", "institution": "Norwegian Meteorological Institute, MET Norway"},
        )
        seconds = {"units": "seconds since 1970-01-01 00:00:00 +00:00", "dtype": "f8"}
        encoding: dict[str, Any] = {"time": seconds, "forecast_reference_time": seconds}
        name = f"meps_det_2_5km_{np.datetime_as_string(start, 'h').replace('-', '')}Z.nc"
        data.to_netcdf(files(folder) / name, encoding=encoding, unlimited_dims="time")
    steps = np.concatenate([24 * run + np.arange(1, leads) for run in range(runs)])
    fields = {
        "air_temperature_2m": Field(temperature(latitude, longitude, steps), "K"),
        "precipitation_amount_acc": Field(rain(latitude, longitude, steps), "kg m-2", "sum", (-1, 0)),
    }
    return Truth(latitude, longitude, hours_after("2020-01-01", steps), fields)


def hrrr_zarr(folder: Path, runs: int = 12, leads: int = 5) -> Truth:
    """Temperature and rain of HRRR from dynamical.org's Zarr archive: (init_time, lead_time, y, x), rows from north to
    south, rain as a mean rate of the hour before."""
    y, x = 15000.0 - 3000 * np.arange(16), -21000.0 + 3000 * np.arange(20)  # the projection's centre: [5, 7]
    latitude, longitude = degrees(HRRR, y, x)
    hours = 12 * np.arange(runs)[:, None] + np.arange(leads)
    warm, wet = (f(latitude, longitude, hours.ravel()).reshape(*hours.shape, 16, 20) for f in (temperature, rain))
    wet[:, 0] = np.nan
    from pyproj import CRS

    dims = ("init_time", "lead_time", "y", "x")
    celsius = {
        "units": "degree_Celsius",
        "standard_name": "air_temperature",
        "short_name": "t2m",
        "step_type": "instant",
    }
    rate = {"units": "kg m-2 s-1", "standard_name": "precipitation_flux", "short_name": "tp", "step_type": "avg"}
    rate["comment"] = "Average precipitation rate since the previous forecast step."
    init = np.datetime64("2020-01-01", "ns") + 12 * np.arange(runs) * HOUR
    data = xr.Dataset(
        {
            "temperature_2m": (dims, (warm - 273.15).astype("f4"), celsius),
            "precipitation_surface": (dims, (wet / 3600).astype("f4"), rate),
        },
        {
            "init_time": ("init_time", init, {"standard_name": "forecast_reference_time"}),
            "lead_time": ("lead_time", np.arange(leads) * HOUR, {"standard_name": "forecast_period"}),
            "valid_time": (
                ("init_time", "lead_time"),
                init[:, None] + np.arange(leads) * HOUR,
                {"standard_name": "time"},
            ),
            "y": ("y", y, {"units": "m", "standard_name": "projection_y_coordinate"}),
            "x": ("x", x, {"units": "m", "standard_name": "projection_x_coordinate"}),
            "latitude": (("y", "x"), latitude, LATITUDE),
            "longitude": (("y", "x"), longitude, LONGITUDE),
            "spatial_ref": ((), np.int64(0), CRS(HRRR).to_cf()),
        },
        {"dataset_id": "noaa-hrrr-forecast-48-hour"},
    )
    data["temperature_2m"].encoding["grid_mapping"] = data["precipitation_surface"].encoding["grid_mapping"] = (
        "spatial_ref"
    )
    seconds = {"units": "seconds since 1970-01-01", "dtype": "i8"}
    data.to_zarr(
        files(folder) / "noaa-hrrr-forecast-48-hour.zarr",
        zarr_format=3,
        consolidated=False,
        encoding={"init_time": seconds, "valid_time": seconds, "lead_time": {"units": "seconds", "dtype": "i8"}},
    )
    steps = hours[:, 1:].ravel()
    fields = {
        "temperature_2m": Field(warm[:, 1:].reshape(-1, 16, 20) - 273.15, "degree_Celsius"),
        "precipitation_surface": Field(wet[:, 1:].reshape(-1, 16, 20), "kg m-2", "sum", (-1, 0)),
    }
    return Truth(latitude, longitude, hours_after("2020-01-01", steps), fields)


def places_only(folder: Path, hours: int = 60) -> Truth:
    """Hourly temperature on a Lambert cone of which the file tells but latitude and longitude of every point, in
    float32, as many programs write it."""
    y, x = -15000.0 + 2500 * np.arange(16), -20000.0 + 2500 * np.arange(20)
    latitude, longitude = degrees(NORDIC, y, x)
    steps = np.arange(hours)
    warm = temperature(latitude, longitude, steps)
    data = xr.Dataset(
        {"t2m": (("time", "y", "x"), warm.astype("f4"), {"units": "K", "coordinates": "lon lat"})},
        {"time": ("time", np.datetime64("2020-01-01", "ns") + steps * HOUR)},
    )
    data["lat"] = (("y", "x"), latitude.astype("f4"), LATITUDE)
    data["lon"] = (("y", "x"), longitude.astype("f4"), LONGITUDE)
    data.to_netcdf(files(folder) / "t2m.nc", encoding={"t2m": PACKED})
    return Truth(latitude, longitude, hours_after("2020-01-01", steps), {"t2m": Field(warm, "K")})
